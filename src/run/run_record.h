// Runs as the extension's tables keep them: parameters, checkpoint, counts, rejects.
#pragma once

#include "mapping/catalog.h"
#include "parts/part_table.h"
#include "store/tally.h"

namespace prm {

struct RunParameters {
  bool dry_run = false;
  std::optional<std::string> priority;
  std::optional<std::string> mapping;
  std::string source;
  std::string on_error = "continue";
  bool prune = false;
  bool force = false;          // also families of PostgreSQL; prune whatever the share of the rows
  bool is_flushed = false;     // live: the server was told to forget keys
  bool live = false;           // the stream of changes is followed when everything has been read
  bool waits = false;          // for whoever changes the migration
  std::string begin;           // the position that passes begin at: of a file, which one; otherwise empty
  std::optional<int> workers;  // processes that read; nothing: the run chooses
};

class RunRecord {
 public:
  // Resumes the last run of the migration if it was interrupted, has the same parameters and the definition
  // has not changed since; begins a new one otherwise.
  static RunRecord Begin(const std::string &migration, const RunParameters &parameters);
  // For a process that takes part in a run: the migration's name and the parameters are those of the run.
  // Errors: 42704 also for a run of somebody else, 55000 when it is not in progress.
  static RunRecord Join(int64 run_id, std::string *migration, RunParameters *parameters);

  // To read what is kept of a run.
  static RunRecord Of(int64 run_id);

  int64 id() const { return id_; }
  bool resumed() const { return resumed_; }
  int level() const { return level_; }
  const std::string &position() const { return position_; }

  // Begins a level.
  void BeginLevel(int level);
  // The parts of a level that is read in parts.
  PartTable PartsOf(int level) const { return PartTable::OfRun(id_, level); }
  // Forgets the parts of a level with all that was counted for them, because the source no longer has them.
  // Commits.
  void DropParts(int level);
  // Makes everything saved from now on belong to the part of the level with this number, which this process
  // reads; 0: to the whole level.
  void SetPart(int number) {
    part_ = number;
    reads_part_ = number != 0;
  }
  // Makes the counts saved from now on those of the process that applies this share of the changes.
  void SetShare(int number) { part_ = number; }
  void AddRepeatedSlots(int level, uint64 slots);
  // Those of all parts of a level.
  uint64 CountRepeatedSlots(int level) const;
  // Records that this process leads the run.
  void Touch();

  // Removes the snapshots and spools that no run will resume with.
  void RemoveUnusedFiles() const;

  // Records whether a mapping was pruned, and if not, why.
  void SetPruneOutcome(const std::string &mapping, const std::string &outcome, const std::string &why);
  // Begins the counts of rows of these mappings, so that those without a key are shown, too.
  void AddMappings(const std::vector<std::string> &mappings);
  // The mappings that take unchanged rows for their own: those whose packed ledger was empty when the run
  // began.
  std::set<std::string> ReadClaiming() const;
  // Whether keys of a pattern were skipped because their family belonged to PostgreSQL.
  bool HasSkippedOwned(const std::string &pattern) const;
  // How many keys the source has, as it says.
  void SetEstimate(int64 keys);
  // Does so for a source that says it bit by bit: adds what a batch tells. Later levels and other parts hear
  // it again and add nothing.
  void AddExpected(int level, uint64 keys);
  // Adds to the keys that Redis evicted while it was read.
  void AddEvicted(int64 keys);
  // Writes counts, rejects and deferred keys of a batch, and the checkpoint, in the caller's transaction.
  void Save(const Tally &tally, int level, const std::string &position);
  // Whether the run already has a reject of that key at that level, as when a batch is read again.
  bool HasReject(int level, const source::Entry &entry) const;
  // The keys that the run has rejects of, but for those that are settled.
  std::set<std::pair<int, std::string>> ReadRejectedKeys() const;
  // Forgets the rejects of keys that have others now; their counts stay.
  void ForgetRejects(const std::vector<std::pair<int, std::string>> &keys) const;
  // Settles the rejects of keys whose values are others now, in place of what was settled of them before.
  void SettleRejects(const std::vector<std::pair<int, std::string>> &keys) const;
  // Forgets what was settled longer than pg_redis_migrate.journal_retention ago.
  void ForgetSettledRejects() const;
  // Forgets what was counted at a level, or for the part of it, because the source begins it again.
  void RestartLevel(int level);
  // Notes the keys of a batch that its position does not cover, for a resumed run; or, when it does, forgets
  // those of earlier batches.
  void NotePageKeys(const std::vector<const source::Entry *> &entries, bool beyond);
  // Returns the keys that NotePageKeys noted.
  std::set<std::pair<int, std::string>> ReadPageKeys() const;
  bool HasDeferred(int level) const;
  // Removes from the waiting keys of the level those of the entries, and returns them.
  std::set<std::pair<int, std::string>> ForgetDeferred(int level,
                                                       const std::vector<const source::Entry *> &entries);
  // Entries of the level that wait for their foreign keys, at most `limit` of those after (db, index_key) in
  // the order of database and IndexKey; taken out of the table.
  std::vector<source::Entry> TakeDeferred(int level, int db, Bytes index_key, int limit);
  // Forgets which rows the run has met.
  void ForgetSeen() const;
  // Records the end of the run: its state, and the error if there was one.
  void Finish(const std::string &state, const std::optional<std::string> &sqlstate,
              const std::optional<std::string> &message);

  // Rows that the run has written over, or put back, though somebody else had changed or deleted them.
  struct ChangedRows {
    std::string mapping, pattern;
    int64 changed, deleted;
  };
  std::vector<ChangedRows> ReadChangedRows() const;

  // The outcomes of the rows of a mapping; for the archive the target is empty.
  struct MappingRows {
    std::string mapping, target;
    RowCounts counts;
  };
  std::vector<MappingRows> ReadMappingRows() const;

  struct Sums {
    int64 read = 0;
    std::map<std::string, int64> outcomes;
    std::string unbalanced;      // the first pattern whose sums differ, with the numbers; empty: none
    std::string reject_summary;  // those that are not settled, by rule
    double seconds = 0;
    int64 rows_deleted = 0;
    int64 evicted = 0;  // keys that Redis evicted while it was read
  };
  Sums ReadSums() const;

 private:
  void SaveCounts(const Tally &tally, int level) const;
  // Counts that the source has begun again. What was counted of it is forgotten already, and no rate goes
  // back to before.
  void NoteRestart();

  int64 id_ = 0;
  bool resumed_ = false;
  int level_ = 0;
  int part_ = 0;
  bool reads_part_ = false;  // part_ is a part of a level
  std::string position_;
};

}  // namespace prm
