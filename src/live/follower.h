// Applies the stream of changes to the tables, in small batches, each with the position that it reaches.
//
// Changes of a key within a batch are one: its newest state counts. If a command does not carry the new
// state, the key is read from the server, which shows a later state than the position. Such keys are
// remembered until the position has reached that state.
//
// It takes the keys of one share. What the server did at once to keys of several shares, a transaction for
// example, is a barrier: each share stores its part by itself, and none stores a later batch before all have.
#pragma once

#include "connect/server.h"
#include "connect/spool_files.h"
#include "core/interrupts.h"
#include "live/backfill.h"
#include "live/followed_run.h"
#include "live/link_watch.h"
#include "live/reject_streak.h"
#include "live/slot_owners.h"
#include "live/touched_keys.h"
#include "redis/data_watch.h"
#include "run/ledger_merges.h"
#include "source/named_keys.h"
#include "store/batch.h"
#include "stream/known_values.h"
#include "stream/stream_changes.h"
#include "stream/stream_spool.h"
#include "stream/value_spacing.h"

namespace prm {

class Follower : public Interrupts {
 public:
  // Expects the snapshot of the run to be loaded, and the share of the record to be begun. Its arguments must
  // outlive it.
  Follower(FollowedRun &run, const LiveRecord &record, LinkWatch &link);

  // Goes on from the position that was committed last until it is interrupted. Throws FullSyncNeeded. Errors:
  // those of BatchStore, of the server (08006 when it cannot be reached, or lags behind the stream), 0A000
  // for a command whose keys nobody knows, XX001 for a damaged spool.
  [[noreturn]] void Follow();

  // As Follow, for the followers of all masters of a cluster, in turn.
  [[noreturn]] static void FollowCluster(std::vector<std::unique_ptr<Follower>> &followers,
                                         SlotOwners &owners);

  void CheckInterrupts() override { pg::CheckInterrupts(); }

 private:
  static constexpr int64 kBatchEveryMs = 20;  // no batch begins to be stored sooner after the last one did
  static constexpr int64 kRetryMs = 1000;     // until a key that waits is looked at again
  static constexpr int64 kMovedMs = 5000;     // the reverse feed has that long to write a key that was moved
  static constexpr long kLagPauseMs = 50;     // while the keys' server is behind, or slots move

  struct KeyChange {
    stream::ChangeKind kind;
    source::Entry entry;
    uint64 offset;
    int tries = 0;
    int absences = 0;          // it has been read so often, and was not there
    bool is_due = false;       // it has waited
    bool only_expiry = false;  // nothing but when the key expires has changed
    bool is_filling = false;   // nothing has changed, as far as is known: its mappings have
    bool is_older = false;     // as that of LateWrite
    int64 moved_until_ms = 0;  // as KeyAhead's
    uint64 barrier = 0;        // likewise
    // kSet: the changes of the key's elements, from which the entry is filled in the end. is_whole: the key
    // has no other elements.
    std::optional<stream::ElementChanges> elements = std::nullopt;
    bool is_whole = false;
    uint64 together = 0;  // as that of source::NamedKey: changed by one transaction
  };
  struct LargeValue {
    KeyId id;
    uint64 bytes;
    int64 read_ms;
  };
  struct Batch {
    std::map<KeyId, KeyChange> keys;
    std::map<KeyId, KeyChange> overwritten;  // by the reverse feed since
    uint64 bytes = 0;
    int64 commands = 0;
    int64 read_again = 0;
    // Keys that had rejects before, and keys that have some now.
    std::vector<KeyId> forgiven, rejected;
    std::map<std::string, RowCounts> rows;         // that were stored
    std::vector<LargeValue> large;                 // that were read again
    bool has_late = false;                         // changes of families that belong to PostgreSQL
    std::vector<const source::Entry *> unsettled;  // of these, those that are to be looked at again
    bool takes_elements_again = false;             // of a family that belongs to Redis again
    bool ends_backfill = false;
    RejectStreak streak;  // after it
    uint64 applied = 0;   // up to there all shares are, with it
    uint64 barrier = 0;   // the end of the last that the server did at once to keys of several shares
    // Keys that other masters of the cluster have now, by the number of the follower.
    std::map<size_t, std::set<KeyId>> left;
    redis::Slots emptied;  // of the cluster, at this master
  };
  struct Cluster {
    std::vector<std::unique_ptr<Follower>> *followers;
    SlotOwners *owners;
    size_t number;  // of this one
  };
  // Slots of the keys were moved while the keys were read.
  struct SlotsMoved {};
  // The master of a cluster cannot be reached now.
  struct MasterAway {};
  using Entries = std::vector<const source::Entry *>;

  void ReadRecord();
  bool OpenSpool();
  bool IsApplied(const stream::StreamChange &change) const;
  bool OthersLag() const;
  void NoteShare(int db, const std::string &key);
  void PassBarrier(uint64 barrier);

  bool Step();
  void LeaveToOthers(Batch &batch);
  void AskOwners();
  void AskClock();
  void Disconnect(const pg::Failure &failure);
  void TakeOver(const std::set<KeyId> &ids);

  void Collect(Batch &batch);
  void WaitForNews();
  bool IsShortOfRoom();
  bool TakeNext(Batch &batch);
  void Take(stream::StreamChange &change, Batch &batch);
  void TakeKey(stream::StreamChange change, Batch &batch);
  void TakeChangedKey(int db, std::string key, uint64 offset, Batch &batch);
  void TakeOwn(const KeyId &id, const stream::StreamChange &change, Batch &batch);
  void NoteOverwritten(const KeyId &id, KeyChange change, Batch &batch) const;
  void NoteOwn(const KeyId &id, bool is_gone);
  void Complete(stream::StreamChange &change);
  bool TakeElements(const KeyId &id, stream::StreamChange &change, uint64_t route, Batch &batch);
  static void FinishElements(Batch &batch);
  void RequireWholeParts(const Tally &tally) const;
  Result<std::string> FindName(const std::string &command);
  void TakeUnknown(const stream::StreamChange &change, Batch &batch);
  void TakeFlush(const stream::StreamChange &change) const;
  void TakeSlots(const stream::StreamChange &change, Batch &batch);
  void TakeId(const stream::SpoolChunk &chunk, Batch &batch);
  void TakeWaiting(Batch &batch);
  void TakeBackfill(Batch &batch);
  bool HasDueKeys() const;
  bool IsDue(const KeyAhead &key, int64 now_ms) const;
  static size_t MostKeys();
  bool IsFull(const Batch &batch) const;

  // Thrown when a change of elements has to be judged with the others of its key.
  struct PartsRefused {
    struct Part {
      KeyId key;
      bool is_always;  // all keys of its pattern
    };
    std::vector<Part> parts;
  };

  void ReadAgain(Batch &batch);
  void ReadAgain(const std::vector<KeyChange *> &changes, Batch &batch);
  void ReadWhole(const PartsRefused &refused, Batch &batch);
  void ReadAgain(std::vector<source::NamedKey> &keys, const std::vector<KeyChange *> &changes);
  bool IsOfNow(const std::vector<source::NamedKey> &keys, const std::vector<KeyChange *> &changes) const;
  bool HasSameData(const std::vector<source::NamedKey> &keys);
  void TakeRead(source::NamedKey &key, KeyChange &change);
  void Wait(const KeyChange &change, KeyAhead::Kind kind, uint64 offset, int tries, int64 pause_ms);
  void WaitForOthers(const KeyChange &change, KeyAhead::Kind kind, uint64 offset, int tries,
                     const std::optional<OtherShares> &others);
  redis::Connection &Connect();
  source::NamedKeys &Reader();
  source::TimeSpan ByServerClock(const source::TimeSpan &time) const {
    return {time.after_ms + clock_ahead_ms_, time.until_ms + clock_ahead_ms_};
  }
  source::TimeSpan Now() const;

  void KeepToBudget();
  bool Space(const KeyId &id, const KeyChange &change);
  void NoteLarge(const std::vector<source::NamedKey> &keys, int64 took_ms, Batch &batch) const;
  void SpaceLarge(const Batch &batch, int64 stored_in_ms);

  void Apply(Batch &batch);
  void ReleaseApplied();
  void LookAtOthers();
  void NoteTouched(const Batch &batch);
  bool MayBeOfMove(const LateWrite &write, Batch &batch);
  void KeepLate(Batch &batch, std::vector<LateWrite> &late);
  bool KeepOverwritten(const Batch &batch);
  void Store(Batch &batch);
  void NameLateWriters();
  void LockMappings(const Batch &batch) const;
  Entries TakeDeferred(Tally &tally) const;
  static void ForgiveNone(const Entries &waiting, Batch &batch);
  void SettleRejects(Batch &batch, const Tally &tally);
  void SaveKeysAhead(uint64 offset);
  LivePosition NextPosition() const;

  FollowedRun &run_;
  const LiveRecord &record_;
  LinkWatch &link_;
  const stream::KeyShare share_;
  bool const is_feed_;  // the stream has only the names of changed keys, and its offsets are not the server's
  std::optional<Cluster> cluster_;
  std::optional<Batch> held_;  // which needs a master that is away
  int64 retry_ms_ = 0;         // not to be reached for before, monotonic
  int64 alone_since_ms_ = 0;   // since when the spool has been full of one transaction
  int64 unspooled_ms_ = 0;     // since when the link streams, and the spool lacks what follows the position
  BatchStore store_;
  PassFilter filter_;
  std::set<std::string> claiming_;
  bool forgets_archived_;
  SpoolFiles spool_;
  std::unique_ptr<stream::StreamSpoolReader> reader_;
  std::optional<stream::StreamChanges> changes_;
  std::vector<stream::StreamChange> found_;
  stream::KnownValues known_;          // of the stream up to there, or up to the offset where a key is ahead
  LivePosition position_;              // that is committed
  std::vector<AppliedShare> earlier_;  // of keys that are applied beyond it
  uint64 done_at_once_ = 0;            // commands and transactions that have been taken
  uint64 together_ = 0;                // of what is being taken and was done at once
  std::optional<int> at_once_;         // a share that has keys of what is being taken and was done at once
  bool is_of_several_ = false;         // and others have, too
  uint64 common_end_ = 0;              // where the next batch is to end, because another's ended there
  std::vector<redis::ReplicationPoint> next_ids_;  // of the stream beyond each offset
  int64 received_at_ms_ = 0;
  int64 clock_ahead_ms_ = 0;           // of the server's clock before ours
  std::map<KeyId, KeyAhead> ahead_;    // kStored
  std::map<KeyId, KeyAhead> waiting_;  // the others
  std::set<KeyId> unsaved_;            // that have come to the two, have changed there, or have left them
  bool has_saved_keys_ = true;
  std::set<KeyId> rejected_;  // that have rejects
  std::set<KeyId> own_gone_;  // of a cluster: that the reverse feed has deleted of late
  RejectStreak streak_;
  std::unique_ptr<ServerConnection> connection_;
  // What that server calls commands by themselves that others do not know.
  std::map<std::string, std::string> names_;
  std::optional<redis::DataWatch> data_;  // of the server of a feed
  source::RereadBudget budget_;
  std::optional<Backfill> backfill_;
  stream::ValueSpacing spacing_;
  std::unique_ptr<source::NamedKeys> named_;
  int64 stored_ms_ = 0;            // when the last batch began to be
  int64 pace_ms_ = kBatchEveryMs;  // from then until the next may begin to be, unless it is full
  // A commit that may not be durable yet, and the offset up to which everything was applied then, of all
  // shares.
  struct Commit {
    XLogRecPtr commit_end;
    uint64 offset;
  };
  std::optional<Commit> unreleased_;
  Commit newest_ = {};
  int64 looked_at_others_ms_ = 0;
  LedgerMerges merges_;
  TouchedKeys touched_;
  std::set<std::string> read_whole_;       // patterns, because their families are PostgreSQL's
  int since_maintenance_ = 0;              // batches
  std::optional<int64> named_writers_ms_;  // when it was last asked who writes late
};

}  // namespace prm
