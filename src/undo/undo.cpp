// CALL redis_migrate.undo_run(…): takes back what a run or live session did to rows.
#include "mapping/family_state.h"
#include "mapping/migration_lock.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/own_write.h"
#include "pg/transaction.h"
#include "undo/journal_reader.h"
#include "undo/target_undo.h"
#include "undo/undo_record.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kLinesAtOnce = 1000;
constexpr int64 kBytesAtOnceOfJournal = 8 * 1024 * 1024;
// Room for those that load a mapping, and for what triggers open.
constexpr int kMostSubtransactions = pg::kMostSubtransactions - 4;

struct RunToUndo {
  int64 id;
  bool dry_run;  // of the undo
  bool force;
  Migration migration;
  std::set<std::string> claiming;  // mappings whose changed rows were nobody's before
};

// Errors: 42704 no such run, or one that the caller may not see; 55000 a dry run.
std::string MigrationOf(int64 run_id) {
  pg::Rows const rows =
      Spi::Execute("SELECT migration, dry_run FROM redis_migrate.runs WHERE run_id OPERATOR(pg_catalog.=) $1",
                   {SqlParam::Int8(run_id)});
  if (rows.size() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, "run " + std::to_string(run_id) + " does not exist", "",
                  "SELECT run_id, migration FROM redis_migrate.runs lists those of your migrations.");
  if (rows[0].Bool(1))
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "run " + std::to_string(run_id) + " was a dry run, which has kept nothing");
  return rows[0].Text(0);
}

class Undo {
 public:
  explicit Undo(RunToUndo run) : run_(std::move(run)), record_(run_.id, run_.dry_run) {}

  void Execute();

 private:
  void RequireFamilies() const;
  void Begin();
  void BeginTransaction() const;
  bool UndoBatch();
  void UndoJournal();
  void RemoveInserted();
  void RemoveInsertedOf(const Mapping &mapping);
  void Commit() {
    if (!run_.dry_run) Spi::Commit();
  }
  void Report() const;
  const Mapping *Find(int64 mapping_id) const {
    for (const Mapping &mapping : run_.migration.mappings)
      if (mapping.id == mapping_id) return &mapping;
    return nullptr;
  }
  bool Claims(const Mapping &mapping) const { return run_.claiming.count(mapping.name) > 0; }
  struct Opened {
    std::unique_ptr<TargetUndo> undo;  // nothing: why_not says why
    std::string why_not;
  };
  Opened Open(const Mapping &mapping, bool needs_images) const;

  RunToUndo run_;
  UndoRecord record_;
  int64 before_ = PG_INT64_MAX;  // entries from there on are done, or left
};

// No family may become PostgreSQL's until the end of the transaction.
void Undo::RequireFamilies() const {
  std::set<std::string> const owned = LockOwnedFamilies(run_.migration.name);
  for (const Mapping &mapping : run_.migration.mappings)
    if (!run_.force && owned.count(mapping.pattern) > 0)
      throw Failure(
          ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "family " + mapping.pattern + " belongs to PostgreSQL",
          "Its rows are the application's by now.",
          "CALL redis_migrate.undo_run(" + std::to_string(run_.id) + ", force => true) all the same.");
}

void Undo::Begin() {
  RequireFamilies();
  pg::AsExtensionOwner as_owner;
  // A run that is resumed, and a stream that is followed further, would take for granted what is undone.
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run
            SET state = 'superseded'
            WHERE migration = $1 AND NOT dry_run AND state IN ('running', 'stopped', 'failed'))sql",
      {SqlParam::Text(run_.migration.name)});
  pg::Rows const claiming = Spi::Execute(
      "SELECT DISTINCT mapping FROM redis_migrate.mapping_count WHERE run_id = $1 AND claims_unchanged",
      {SqlParam::Int8(run_.id)});
  for (uint64 i = 0; i < claiming.size(); ++i) run_.claiming.insert(claiming[i].Text(0));
}

void Undo::BeginTransaction() const {
  RequireFamilies();
  pg::CheckConstraintsAtOnce();
  pg::SetForTransaction("synchronous_commit", "off");
}

// Undoes the newest blocks of the journal that were not looked at yet. False: there are none.
bool Undo::UndoBatch() {
  pg::Context context("redis_migrate undo");
  pg::SwitchContext in_context(context.get());
  BeginTransaction();
  std::vector<JournalBlockRead> blocks = ReadJournal(run_.id, before_, kLinesAtOnce, kBytesAtOnceOfJournal);
  if (blocks.empty()) return false;
  std::map<int64, Opened> targets;
  size_t number = 0;
  int subtransactions = 0;
  for (size_t first = 0; first < blocks.size() && subtransactions < kMostSubtransactions;) {
    // Blocks that follow one another, of rows of the same kind.
    JournalBlockRead &block = blocks[first];
    size_t const first_number = number;
    std::vector<JournalEntry> entries;
    size_t end = first;
    for (; end < blocks.size() && blocks[end].IsLike(block); ++end)
      for (size_t i = blocks[end].lines.size(); i-- > 0;)
        entries.push_back({number++, blocks[end].salt, blocks[end].lines[i]});
    const Mapping *const mapping = Find(block.mapping_id);
    std::string why;
    if (mapping == nullptr)
      why = "the mapping is gone";
    else if (mapping->target != block.target)
      why = "the mapping has another target now";
    else if (auto [target, is_new] = targets.try_emplace(mapping->id); is_new)
      target->second = Open(*mapping, false);
    if (why.empty()) why = targets[mapping->id].why_not;
    UndoFindings findings;
    if (why.empty())
      findings = targets[mapping->id].undo->UndoEntries(
          block.columns, block.types, block.keys, entries,
          [&](const RowText &key) { return record_.IsLeft(mapping->name, key); });
    else
      for (const JournalEntry &entry : entries) findings.left.push_back({entry.line.key, "", why});
    findings.counts.changes = static_cast<int64>(findings.undone.size());
    std::set<size_t> const undone(findings.undone.begin(), findings.undone.end());
    size_t at = first_number;
    for (size_t i = first; i < end; ++i) {
      std::vector<bool> is_undone(blocks[i].lines.size());
      for (size_t k = is_undone.size(); k-- > 0;) is_undone[k] = undone.count(at++) > 0;
      StrikeOff(blocks[i], is_undone);
    }
    subtransactions += findings.subtransactions;
    before_ = blocks[end - 1].id;
    record_.Add(mapping == nullptr ? "(" + block.target + ")" : mapping->name, std::move(findings));
    first = end;
  }
  return true;
}

// The target of a mapping, unless it can no longer be written to, such as because it is gone; or,
// needs_images, unless the mapping's query can no longer say what its rows hold.
Undo::Opened Undo::Open(const Mapping &mapping, bool needs_images) const {
  Opened target;
  try {
    pg::InSubtransaction([&] {
      target.undo = std::make_unique<TargetUndo>(mapping, run_.force, Claims(mapping));
      if (needs_images) target.undo->image_columns();
    });
    return target;
  } catch (const pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    target.why_not = error.what();
  } catch (const Failure &failure) {
    target.why_not = failure.message();
  }
  target.undo.reset();
  return target;
}

void Undo::UndoJournal() {
  before_ = PG_INT64_MAX;
  while (UndoBatch()) Commit();
  Commit();
}

void Undo::RemoveInserted() {
  for (auto mapping = run_.migration.mappings.rbegin(); mapping != run_.migration.mappings.rend(); ++mapping)
    RemoveInsertedOf(*mapping);
  for (const StrandedRows &stranded : FindStrandedRows(run_.migration.name, run_.id)) {
    UndoFindings findings;
    findings.left.push_back({{}, "", stranded.reason, stranded.rows});
    record_.Add(stranded.mapping, std::move(findings));
  }
  Commit();
}

// Each transaction removes rows of a list, and strikes off the list those that are removed or already gone:
// what somebody inserts later is not the run's.
void Undo::RemoveInsertedOf(const Mapping &mapping) {
  InsertedRows const inserted(mapping, run_.id);
  if (inserted.IsSorted() && inserted.Lists().empty()) return Commit();
  {
    pg::Context context("redis_migrate undo");
    pg::SwitchContext in_context(context.get());
    BeginTransaction();
    Opened target = Open(mapping, true);
    UndoFindings findings;
    if (!target.undo) {
      findings.left.push_back({{}, "", target.why_not, inserted.Count()});
    } else if (!inserted.IsSorted()) {
      findings.counts.changes = inserted.Sort(target.undo->image_columns());
    }
    record_.Add(mapping.name, std::move(findings));
    target.undo.reset();
    Commit();
    if (!target.why_not.empty()) return;
  }
  for (int64 list : inserted.Lists()) {
    std::vector<PackedItem> left;
    for (bool is_done = false; !is_done;) {
      pg::Context context("redis_migrate undo");
      pg::SwitchContext in_context(context.get());
      BeginTransaction();
      UndoFindings findings;
      {
        TargetUndo target(mapping, run_.force, Claims(mapping));
        int64 const columns = target.image_columns();
        std::vector<PackedItem> rest = target.RemoveInserted(Without(inserted.Read(list, columns), left),
                                                             kMostSubtransactions, left, findings);
        is_done = rest.empty();
        std::sort(left.begin(), left.end());
        rest.insert(rest.end(), left.begin(), left.end());
        list = inserted.Replace(list, columns, std::move(rest));
      }
      record_.Add(mapping.name, std::move(findings));
      Commit();
    }
  }
  if (!run_.dry_run && mapping.ledger == "packed") PackedLedger::Merge(mapping.id);
  Commit();
}

void Undo::Report() const {
  UndoCounts const total = record_.total();
  auto count = [](int64 rows) { return std::to_string(rows); };
  pg::Report(NOTICE,
             "run " + count(run_.id) + (run_.dry_run ? " would be undone: " : " is undone: ") +
                 count(total.restored) + " rows restored, " + count(total.put_back) + " put back, " +
                 count(total.removed) + " removed, " + count(total.left_alone) + " left alone",
             total.already > 0 ? count(total.already) + " rows were as before already." : "",
             "SELECT * FROM redis_migrate.undos WHERE run_id = " + count(run_.id) + ".");
  for (const auto &[mapping, counts] : record_.counts()) {
    if (counts.failed > 0)
      pg::Report(WARNING, count(counts.failed) + " rows of mapping \"" + mapping + "\" could not be undone",
                 "",
                 "SELECT * FROM redis_migrate.undo_leftovers WHERE run_id = " + count(run_.id) +
                     ". Remove the causes, and call undo_run once more.");
    if (counts.unknown > 0)
      pg::Report(
          WARNING,
          count(counts.unknown) + " changes of mapping \"" + mapping +
              "\" are not in the journal and stay as they are",
          "They are older than pg_redis_migrate.journal_retention, or were made with journal => false, or "
          "the migration's owner could not read all columns of the target.");
  }
}

void Undo::Execute() {
  MigrationLock lock(run_.migration.name);
  auto work = [&] {
    Begin();
    record_.Begin(run_.force);
    Commit();
    // A row that another refers to is refused until that has gone: again while there is progress.
    for (int64 before = -1; before < record_.total().changes;) {
      before = record_.total().changes;
      record_.BeginPass();
      UndoJournal();
      RemoveInserted();
      if (record_.total().failed == 0) break;
    }
  };
  // The changes of a row are undone one upon the other, so that a dry run has to make them, and to roll them
  // back together.
  if (run_.dry_run)
    pg::InRolledBackSubtransaction(work);
  else
    work();
  record_.Finish();
  Spi::Commit();
  Report();
}

}  // namespace
}  // namespace prm

// redis_migrate.undo_run(run_id bigint, dry_run boolean, force boolean): see the SQL comment. Errors: 2D000
// in a transaction block; 22004; 42704 no such run; 42501 not the owner; 55000 a dry run, or a family that
// belongs to PostgreSQL; 55006 while the migration runs; those of the targets.
PRM_FUNCTION(undo_run) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.undo_run commits after each batch");
  if (PG_ARGISNULL(0)) throw pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "run_id must not be NULL");
  pg::Spi spi(true);
  // The fence that a cutback leaves is for others. To a reverse feed it is a change of the tables.
  pg::OwnWrite const own_write(pg::OwnWrite::Of::kSweep);
  RunToUndo run;
  run.id = PG_GETARG_INT64(0);
  run.dry_run = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  run.force = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
  run.migration = LoadMigration(MigrationOf(run.id));
  Undo(std::move(run)).Execute();
  PG_RETURN_VOID();
}
