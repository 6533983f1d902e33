// How far a live run is, in the extension's tables: what it has applied, and what its link has received.
#pragma once

#include "core/key_id.h"
#include "pg/pg.h"
#include "redis/replication_point.h"
#include "stream/key_share.h"

namespace prm {

// A key whose row is of another offset than the applied one.
struct KeyAhead {
  enum Kind {
    kStored,  // the row is that of read_offset: commands up to it are passed over
    kAbsent,  // there was no key at read_offset: its row goes when the stream is there, or has deleted the
              // key; but with tries only when it is still not there
    kAgain,   // what was read could not be stored: it is to be read again
  } kind = kStored;
  uint64 read_offset = 0;
  int tries = 0;             // kAbsent: how often a replica did not have it; kAgain
  int64 retry_ms = 0;        // kAbsent, kAgain: not before this time, monotonic
  uint64 newest_offset = 0;  // kAgain: of its last change, if that is later
  uint64 barrier = 0;  // other keys refuse it: they may be others until all shares are applied up to here
  uint64 bytes = 0;    // kAgain: it waits because its value is so large, and changes often
  // It may have come with its slot, from another node: it is no late write before this time, monotonic. 0: it
  // has not. Is not recorded.
  int64 moved_until_ms = 0;
  // kStored: something before read_offset has changed more than when it expires, and whoever has written to
  // the key before read_offset, too, has replaced that. Is not recorded.
  bool may_be_lost = false;
};

// Thrown when the stream cannot be followed any further: another run has to begin with a new snapshot.
struct FullSyncNeeded {
  std::string why;
};

struct LivePosition {
  redis::ReplicationPoint point;
  int db = 0;  // that the stream has selected there
  int64 received_at_ms = 0;
  bool is_loaded = false;  // the snapshot of the run, which is of `point` until then
};

// How far a share was applied before the number of appliers changed.
struct AppliedShare {
  stream::KeyShare share;
  redis::ReplicationPoint point;
};

// Between which offsets the other processes are that apply shares.
struct OtherShares {
  uint64 lowest, furthest;
};

struct ApplierFailure {
  std::optional<std::string> sqlstate;  // nothing: a full sync is needed
  std::string message;
};

struct LinkStatus {
  std::string state = "connecting";
  std::string replication_id;  // of the server; empty: it has not told yet
  std::optional<int> sqlstate;
  std::string message;
  std::vector<std::string> nodes;  // of a cluster: the ids of the master, first, and of its replicas
  // Only of ReadLink: when it was written.
  TimestampTz noted_at = 0;
  uint64 flush_offset = 0;  // of ReadLink: large values that changed up to there are wanted at once
  std::optional<int64> received_at_ms;
  // Only of WriteLink:
  std::optional<uint64> received_offset, durable_offset, spool_bytes, backlog_bytes;
  int64 reconnects = 0;
  std::string feed;   // of a run with source scan: tracking or notifications
  std::string doubt;  // why that may miss changes; empty: it may not
};

// All functions need SPI and work in the current transaction with the rights of the extension's owner.
class LiveRecord {
 public:
  // link: of a cluster the number of the link, from 1 on; otherwise 0. The share is that of all keys.
  explicit LiveRecord(int64 run_id, int link = 0) : run_id_(run_id), link_(link) {}

  int64 run_id() const { return run_id_; }
  int link() const { return link_; }
  const stream::KeyShare &share() const { return share_; }
  void set_share(const stream::KeyShare &share) { share_ = share; }

  // How many processes are to apply the changes of a migration.
  static int ReadAppliers(const std::string &migration);
  // Before the processes that apply the changes begin: gives the share of each a position, all that has been
  // applied of all keys, and forgets what other processes have applied before if that is not beyond it; notes
  // which mappings have come to the migration, or gone from it, whose keys each has to look for.
  void BeginShares(const std::string &migration) const;

  // Up to where all keys are applied, by any number of processes.
  std::optional<LivePosition> ReadLowest() const;
  // Of this applier's share:
  std::optional<LivePosition> ReadPosition() const;
  std::map<KeyId, KeyAhead> ReadKeysAhead() const;
  // How far each share was applied when the keys were divided in another way.
  std::vector<AppliedShare> ReadEarlierShares() const;
  // How far the others are that apply shares; nothing: there are none.
  std::optional<OtherShares> ReadOthers() const;

  // Writes down why the process ends that applies the share.
  void NoteFailure(const ApplierFailure &failure) const;
  // The failure of any applier, of any link of the run.
  std::optional<ApplierFailure> ReadFailure() const;

  // Begins the position of a run at that of its snapshot.
  void Begin(const LivePosition &position) const;
  // Notes that the whole snapshot is stored, for all mappings that the migration has. A permission to remove
  // more rows than usual ends with it.
  void SetLoaded(const std::string &migration) const;
  // Notes that the server was told to forget keys, or to exchange databases, until all keys are loaded again.
  static void NoteFlush(const std::string &migration);
  // Has a reverse feed write all rows of families of PostgreSQL once more: the server may lack their keys.
  static void NoteLostKeys(const std::string &migration, const char *reason);
  static bool IsFlushed(const std::string &migration);
  // Advances the position of the share, and adds to the counts. Returns how far all are that apply shares.
  uint64 Advance(const LivePosition &position, int64 commands, int64 keys_read_again) const;

  // The patterns of mappings of whose keys the share is still to be looked for, because they have come to the
  // migration since, or have gone from it.
  std::set<std::string> ReadUnfilled() const;
  // They have been found.
  void SetFilled(const std::string &migration) const;

  // Forgets keys whose rows the stream has caught up with.
  void ForgetKeysUpTo(uint64 offset) const;
  void ForgetKeys(const std::vector<KeyId> &keys) const;
  // Adds keys, or changes what is known of them.
  void SaveKeys(const std::vector<std::pair<const KeyId *, const KeyAhead *>> &keys) const;

  // Reads, and then forgets, the dump file with which the next run of the migration is to begin; nothing:
  // none.
  static std::optional<std::string> ReadSeed(const std::string &migration);
  static void ForgetSeed(const std::string &migration);

  // Reads the state that the worker of the link has written; nothing: none yet.
  std::optional<LinkStatus> ReadLink() const;
  // For that worker: whether another run has taken the place of this one.
  bool IsSuperseded() const;
  void WriteLink(const LinkStatus &status) const;

 private:
  void NoteMappings(const std::string &migration) const;

  int64 run_id_;
  int link_;
  stream::KeyShare share_;
};

}  // namespace prm
