// Tries to store a batch by all mappings of a pattern: fill redis_batch, run the queries and checks, write.
// Bad keys are refused where that can be seen without an error; the errors of the rest are the caller's to
// judge.
#pragma once

#include "pg/spi.h"
#include "store/batch_options.h"
#include "store/prepared_mapping.h"
#include "store/row_parts.h"
#include "store/tally.h"

namespace prm {

// The reason why an entry was refused.
struct Refusal {
  std::string mapping;
  std::string rule;
  std::optional<std::string> sqlstate;
  std::string message;
};

// A mapping's result for an entry, the weightiest last.
enum class Mark : char { kNone, kFiltered, kFolded, kUnchanged, kUpdated, kInserted };
constexpr size_t kMarks = 6;

class GroupStore {
 public:
  // The findings of a try, counted only if it holds.
  struct Findings {
    std::map<int, Refusal> refused;
    std::vector<Reject> partial;
    std::set<int> partial_entries;
    std::vector<Mark> marks;
    std::map<std::string, RowCounts> rows;
    std::vector<PreviewRow> preview;
    std::map<std::string, MappingComparison> compared;
  };

  // The result of a try. Unless it stored the entries, its effects are rolled back.
  struct Trial {
    enum Result {
      kStored,
      kRefused,    // `refused` have to be; the others may be tried again
      kDeferred,   // `deferred` have to wait; the others may be tried again
      kNotStored,  // the target did not store the rows that it was given
      kFailed,     // with `error`
    } result = kStored;
    size_t mapping = 0;     // the one that was worked on
    bool in_query = false;  // in its query rather than in its target
    bool blind = false;     // rows were inserted without looking for them first
    Findings findings;      // of kStored
    std::map<int, Refusal> refused;
    std::set<int> deferred;
    std::optional<pg::PgError> error;
  };

  // pattern: what rejects are counted under. Entries are referred to by their number. Needs SPI. Errors:
  // those of MappingState::Prepare.
  GroupStore(Tally::Pattern pattern, const std::vector<std::unique_ptr<MappingState>> &states,
             const std::vector<const source::Entry *> &entries, const BatchOptions &options);

  // Stores the entries in `which` in a subtransaction; not `keep`: and rolls it back.
  Trial Try(const std::vector<int> &which, bool keep = true);

  // As above, with elements of an entry, which are rows of redis_batch, by one mapping.
  Trial TryElements(int entry, size_t mapping, pg::Tuplestore &elements);

  // Deletes the rows of the entries in `which`, or changes them as on_delete says, in a subtransaction; not
  // `keep`: and rolls it back.
  Trial TryDelete(const std::vector<int> &which, bool keep = true);

  // Runs all that a mapping may run, over no rows. Errors: those of its statements.
  void RunWithoutRows(size_t mapping);

  // The rows of redis_batch of one entry.
  void FillElements(int entry, PreparedMapping &mapping, pg::Tuplestore &batch);

  // The elements that a mapping has to leave out of the one entry that is tried next, and why.
  void Exclude(size_t mapping, std::map<int, Refusal> elements) { excluded_[mapping] = std::move(elements); }
  void Include(size_t mapping) { excluded_.erase(mapping); }
  bool Excludes(size_t mapping) const { return excluded_.count(mapping) > 0; }

  size_t mapping_count() const { return prepared_.size(); }
  PreparedMapping &prepared(size_t mapping) { return *prepared_[mapping]; }
  void StopExpectingNewRows();

  // After a failed try: makes statements store the rest of the batch, and after a unique violation all later
  // batches of the mapping. False if no row had been inserted in bulk.
  bool StopBulkInserts(const Trial &trial);

  template <typename Visit>
  static void ForEachTuple(TupleDesc desc, pg::Tuplestore &rows, Visit visit) {
    TupleTableSlot *slot = pg::Call([&] {
      tuplestore_rescan(rows.get());
      return MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
    });
    while (pg::Call([&] { return tuplestore_gettupleslot(rows.get(), true, true, slot); })) visit(slot);
    pg::Call([&] { ExecDropSingleTupleTableSlot(slot); });
  }

 private:
  // Thrown when a try finds out, after it has begun to write, that entries have to wait, or to be refused.
  struct EntriesDeferred {
    std::set<int> entries;
  };
  struct EntriesRefused {
    std::map<int, Refusal> refusals;
  };
  struct Stage {
    std::unique_ptr<QueryRows> rows;
    std::set<int> dropped;  // rows that a check refused, where the good elements are kept
  };
  using KeyOfRow = std::function<KeyName(int)>;
  using Outcomes = std::vector<std::pair<int, RowOutcome>>;

  template <typename Body>
  Trial InTrial(bool keep, Body body);
  void Store(const std::vector<int> &which, Trial &trial);
  void StoreShare(const std::vector<int> &which, Trial &trial);
  void StoreElements(int entry, size_t mapping, pg::Tuplestore &elements, Trial &trial);
  void Delete(const std::vector<int> &which, Trial &trial);
  FillOptions FillOptionsOf(const PreparedMapping &mapping) const;
  // The rows of the query of a mapping over entries.
  void MakeRows(const std::vector<int> &which, size_t mapping, QueryRows &rows, Findings &findings);
  void Fill(const std::vector<int> &which, size_t mapping, BatchSink &sink, Findings &findings);
  void LeaveOutExcluded(const std::vector<int> &which, size_t mapping, pg::Tuplestore &batch,
                        Findings &findings);
  void FindMissing(const std::vector<int> &which, PreparedMapping &mapping, const QueryRows &rows,
                   Findings &findings);
  static pg::Rows FailedChecks(PreparedMapping &mapping, pg::Tuplestore &rows);
  void RunChecks(PreparedMapping &mapping, Stage &stage, Findings &findings);
  static void LeaveOutRefused(PreparedMapping &mapping, Stage &stage, const Findings &findings);
  void Store(PreparedMapping &mapping, Stage &stage, const std::vector<int> &which, Findings &findings);
  void Compare(PreparedMapping &mapping, Stage &stage, Findings &findings);
  void StorePart(PreparedMapping &mapping, RowPart &part, std::vector<int> lost,
                 const std::vector<IdentifiedRow> &identified, Findings &findings,
                 std::map<int, Refusal> &without_target);
  static bool MayFold(const PreparedMapping &mapping, const QueryRows &rows);
  static std::vector<int> FindFolded(PreparedMapping &mapping, Stage &stage, pg::Tuplestore &identities);
  Ledger::Changed ChangedKey(int entry) const;
  void TakeObsolete(PreparedMapping &mapping, const std::vector<int> &which, const Findings &findings,
                    pg::Tuplestore &identities, pg::Tuplestore &obsolete);
  void DeferLosers(const std::vector<int> &lost, const RowPart &part);
  static void KeepLedger(PreparedMapping &mapping, const std::vector<IdentifiedRow> &identified,
                         const std::vector<int> &lost, const Outcomes &outcomes, const KeyOfRow &key_of_row);
  // Deletes what the keys of the batch have left of a packed ledger's rows, so that others can have its
  // place.
  void DeleteLeftRows(PreparedMapping &mapping, Stage &stage, const std::vector<int> &which,
                      const Findings &findings, RowCounts &counts);
  // Refuses parts of keys that a mapping cannot store any more, because its target has changed.
  void RefuseParts(const std::vector<int> &which, const PreparedMapping &mapping, Findings &findings);
  // An entry that only says which elements are gone.
  bool HasNoStates(int entry) const {
    const source::Entry &part = *entries_[static_cast<size_t>(entry)];
    return part.is_part && part.payload.empty();
  }
  // Notes rows that were inserted, so that they can be undone.
  void NoteInserted(PreparedMapping &mapping, RowPart &part, const Outcomes &outcomes);
  void KeepPackedLedger(PreparedMapping &mapping, RowPart &part, const Outcomes &outcomes, bool in_journal);
  bool Claims(const Mapping &mapping) const;
  void NoteSeen(const Mapping &mapping, const std::vector<IdentifiedRow> &identified,
                const std::vector<int> &lost);
  void CollectPreview(PreparedMapping &mapping, Stage &stage, Findings &findings);

  Tally::Pattern pattern_;
  const std::vector<const source::Entry *> &entries_;
  const BatchOptions &options_;
  std::vector<PreparedMapping *> prepared_;
  std::map<size_t, std::map<int, Refusal>> excluded_;
};

}  // namespace prm
