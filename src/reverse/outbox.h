// The outbox: which rows have changed here since their keys were last written to Redis.
#pragma once

#include "pg/session_lock.h"
#include "redis/cluster_slots.h"
#include "reverse/reverse_mapping.h"

namespace prm {

// Locks the row of a migration's reverse feed. Who changes rows of several of its mappings, or of a mapping
// and its outbox, in one transaction does so first, or one who feeds and one who ends the feed may wait for
// each other. Needs SPI; with the rights of the extension's owner.
void LockFeed(const std::string &migration);

// Has the application's changes of the targets noted from now on, in the transaction of each. Needs the right
// to create triggers on them, and their ownership; both are errors of PostgreSQL. Takes SHARE ROW EXCLUSIVE
// on the targets, or ACCESS EXCLUSIVE on those that have such triggers already. The triggers of a table that
// was the target before go, with the same lock; or stay, with a WARNING, if it belongs to others by now.
// Errors: those of pg::LockTables.
void InstallOutboxes(const std::vector<ReverseMapping> &reverses);

// Ends that, and forgets what was noted. Nothing happens to mappings for which it was not installed. The
// triggers of a target that belongs to others by now stay, with a WARNING; they note nothing any more. Takes
// ACCESS EXCLUSIVE. Errors: those of pg::LockTables.
void RemoveOutboxes(const std::vector<Mapping> &mappings);

// Waits until that can be done, without doing it, and keeps no lock. Errors: those of pg::LockTables.
void WaitUntilRemovable(const std::vector<Mapping> &mappings);

// The outbox of a mapping for which one is installed. All functions need SPI and work in the current
// transaction, with the rights of the extension's owner.
class Outbox {
 public:
  explicit Outbox(int64 mapping_id) : mapping_id_(mapping_id) {}

  struct Change {
    int64 id;
    RowName name;
  };
  // The oldest changes, as the active snapshot has them.
  std::vector<Change> Read(int limit);
  // Deletes changes that the last Read returned. first_left: the first of them that stays. If the transaction
  // does not commit, the object is to be forgotten, too.
  void Forget(const std::vector<int64> &ids, int64 first_left);
  // The next Read returns what follows the last change that this one has returned, if there is more. Those
  // that stay, from first_left on, have their turn when it has come to the end, and every second.
  void PassOver(int64 first_left);
  bool HasPassedOver() const { return passed_ > 0; }
  // Whether the next Read returns some that were not passed over.
  bool HasMore() const { return passed_ > 0 && !is_all_; }
  // Notes changes of rows with these names.
  void Note(const std::set<RowName> &names) const;
  // All changes before it are done.
  int64 from() const { return from_; }

  // Whether the feed of the mapping rests, because its family is Redis' again.
  bool IsAtRest() const;
  // Likewise. Forgets what was noted, and what could not be written: when the next cutover ends the rest,
  // Redis has what the rows have. The caller keeps the states of the migration's families as they are.
  bool ForgetAtRest() const;

  // Whether the family of the mapping is Redis', and live sync follows it: see kFollowsRedis.
  bool FollowsRedis() const;

  // Whether changes were not noted, because the outbox was full or the target was truncated, or because a
  // pass over all rows that this has led to has not written them all.
  bool NeedsFull() const;
  // Begins that pass: what changes from now on is noted. Commits. Returns the transactions that may have
  // made changes without noting them: the pass begins once they have ended.
  pg::LockHolders BeginFull() const;
  // All rows are written. The pass ends when no slot is left in which to look for keys without rows.
  void NoteUnscanned(const redis::Slots &slots) const;
  redis::Slots ReadUnscanned() const;
  // Notes that so many changes were of rows whose keys the ledger, which names them, does not know.
  void NoteNameless(int64 changes) const;
  // Makes that pass needed.
  void NoteGap(const char *reason) const;
  // Notes a gap if partitions of the target have come, gone or been truncated, which no trigger tells, or if
  // somebody has changed the triggers.
  void NotePartitions() const;
  // Takes them, and the triggers, as they are. Returns whether they were others before.
  bool TakePartitions() const;
  // A table, quoted, whose changes are not noted, or not those of all sessions: somebody has disabled or
  // dropped its triggers, or it has taken the place of the target. Empty: there is none.
  std::string FindUnwatched() const;

 private:
  bool Holds(const char *condition) const;
  int64 mapping_id_;
  int64 from_ = 0;
  int64 last_ = 0;
  TransactionId next_ = InvalidTransactionId;
  int64 settled_ = 0;    // no transaction will show changes up to it that the last Read did not see
  int64 done_ = 0;       // the same, once those that it returned are done
  int64 read_ = 0;       // the last that it returned
  bool is_all_ = false;  // there were no more
  int64 passed_ = 0;     // changes up to it are passed over; 0: none
  int64 first_passed_ = PG_INT64_MAX;
  int64 passed_ms_ = 0;  // since when
};

}  // namespace prm
