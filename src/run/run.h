// An execution of a migration: its passes, what comes after them, and its end.
#pragma once

#include "mapping/migration_lock.h"
#include "run/parts.h"
#include "run/pass.h"
#include "run/prune.h"

namespace prm {

class Run {
 public:
  // Begins a run or goes on with the one that was interrupted, see RunRecord::Begin, and keeps others away
  // from the migration. Commits.
  Run(const std::string &name, RunParameters parameters);

  const Migration &migration() const { return migration_; }
  const Routing &routing() const { return routing_; }
  const std::string &source() const { return parameters_.source; }
  RunRecord &record() { return record_; }
  // Whether somebody waits to change the migration.
  bool IsInTheWay() const { return lock_.HasWaiters(); }

  // Reads what has not been read yet, and finishes what needs everything to be there: ledgers, prune,
  // sequences. Commits after each batch. Errors: those of Pass, of the source and of Prune.
  // between: called after each batch of a source that is read by this process alone; may commit.
  void Load(const std::function<void()> &between = {});

  // Checks that the sums agree, writes down the end and tells it. Errors: XX001 when they differ.
  void Conclude();
  // Whether the end of the run has been recorded already.
  bool concluded() const { return concluded_; }

  // Records, after an error, what can still be said of the run.
  void Fail(const std::string &state, const pg::Problem &problem);

 private:
  // With ledgers that fit their mappings. Before the run begins, as a ledger without entries takes unchanged
  // rows for the mapping's.
  Migration LoadSettled(const std::string &name) const;
  void Read(int level, const std::function<void()> &between);
  // Waits for the source: the caller has committed.
  SourceDivision AskSource(int level, bool first);
  // Gives a level parts, and processes to read them. False: it is read whole.
  bool Divide(int level, const SourceDivision &source);
  // The number of processes to read the parts that an earlier process has left.
  int CountUnread(const std::vector<PartTable::Part> &parts) const;
  // Reads the parts of a level. False: the source is no longer the one that was divided.
  bool ReadParts(int level, const SourceDivision &source, uint64 &repeated);
  // Rows that others refer to go last: in the order of depends_on, and again after what they waited for is
  // gone. What cannot go then keeps neither other rows nor the run, or live sync, from going on.
  void PruneMappings();
  // around_stuck: leaves rows that cannot go. Not so: false if there are any, and nothing has been done.
  bool PruneMapping(const Mapping &mapping, bool around_stuck);
  void PruneNow(const Mapping &mapping, bool around_stuck);
  void TellPruned(const Mapping &mapping, const PruneResult &result) const;
  // For a live run, which keeps the archive in step, too.
  void PruneArchive();
  // For a live run: errors 55000 when a snapshot would take more of a mapping than may go unasked.
  void RequireFewDeleted(const std::string &what, const PruneResult &result) const;
  // Explicit values do not move a sequence: without this the next INSERT of the application would collide.
  // Values outside the sequence's range do not matter.
  void AdvanceSequences();

  MigrationLock lock_;
  RunParameters parameters_;
  Migration migration_;
  Routing routing_;
  RunRecord record_;
  Pass pass_;
  std::unique_ptr<Helpers> helpers_;
  bool concluded_ = false;
  int first_level_;  // of this CALL
};

}  // namespace prm
