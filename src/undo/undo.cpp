// CALL redis_migrate.undo_run(…): takes back what a run or live session did to rows.
#include "mapping/family_state.h"
#include "mapping/migration_lock.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/transaction.h"
#include "undo/target_undo.h"
#include "undo/undo_record.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kEntriesAtOnce = 1000;
constexpr int64 kBytesAtOnceOfJournal = 8 * 1024 * 1024;

struct RunToUndo {
  int64 id;
  bool dry_run;  // of the undo
  bool force;
  Migration migration;
  std::set<std::string> claiming;  // mappings whose changed rows were nobody's before
};

// Errors: 42704 no such run, 42501 not the owner.
std::string MigrationOf(int64 run_id) {
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::Execute("SELECT migration, dry_run FROM redis_migrate.run WHERE run_id = $1",
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
  explicit Undo(RunToUndo run) : run_(std::move(run)), record_(run_.id) {}

  void Execute();

 private:
  void RequireFamilies() const;
  void Begin();
  bool UndoBatch();
  void UndoJournal();
  void RemoveInserted();
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
      "UPDATE redis_migrate.run SET state = 'superseded' WHERE migration = $1 AND NOT dry_run AND state IN "
      "('running', 'stopped', 'failed')",
      {SqlParam::Text(run_.migration.name)});
  pg::Rows const claiming = Spi::Execute(
      "SELECT DISTINCT mapping FROM redis_migrate.mapping_count WHERE run_id = $1 AND claims_unchanged",
      {SqlParam::Int8(run_.id)});
  for (uint64 i = 0; i < claiming.size(); ++i) run_.claiming.insert(claiming[i].Text(0));
}

// Undoes the newest entries of the journal that were not looked at yet. False: there are none.
bool Undo::UndoBatch() {
  pg::Context context("redis_migrate undo");
  pg::SwitchContext in_context(context.get());
  RequireFamilies();
  pg::CheckConstraintsAtOnce();
  pg::SetForTransaction("synchronous_commit", "off");
  struct Segment {
    int64 mapping_id;
    std::string target;
    std::vector<std::string> columns;
    std::vector<JournalEntry> entries;
  };
  std::vector<Segment> segments;
  {
    pg::SnapshotScope snapshot;
    pg::AsExtensionOwner as_owner;
    pg::Rows const rows = Spi::ExecuteKept(
        R"sql(SELECT journal_id, mapping_id, target, columns, row_key, earlier, later
              FROM (SELECT j.*, sum(pg_column_size(j.earlier)) OVER (ORDER BY journal_id DESC) AS bytes,
                           row_number() OVER (ORDER BY journal_id DESC) AS n
                    FROM (SELECT * FROM redis_migrate.journal WHERE run_id = $1 AND journal_id < $2
                          ORDER BY journal_id DESC LIMIT $3) AS j) AS j
              WHERE n = 1 OR bytes IS NULL OR bytes <= $4
              ORDER BY journal_id DESC)sql",
        {SqlParam::Int8(run_.id), SqlParam::Int8(before_), SqlParam::Int4(kEntriesAtOnce),
         SqlParam::Int8(kBytesAtOnceOfJournal)});
    if (rows.size() == 0) return false;
    for (uint64 i = 0; i < rows.size(); ++i) {
      pg::Row const row = rows[i];
      std::vector<std::string> columns = row.TextArray(3);
      if (segments.empty() || segments.back().mapping_id != row.Int8(1) ||
          segments.back().target != row.Text(2) || segments.back().columns != columns)
        segments.push_back({row.Int8(1), row.Text(2), std::move(columns), {}});
      JournalEntry entry = {row.Int8(0), TextsOfArray(row.Value(4)), std::nullopt, std::nullopt};
      if (!row.IsNull(5)) entry.earlier = TextsOfArray(row.Value(5));
      if (!row.IsNull(6)) entry.later = TextsOfArray(row.Value(6));
      before_ = entry.id;
      segments.back().entries.push_back(std::move(entry));
    }
  }
  for (const Segment &segment : segments) {
    const Mapping *const mapping = Find(segment.mapping_id);
    if (mapping == nullptr || mapping->target != segment.target) {
      UndoFindings findings;
      for (const JournalEntry &entry : segment.entries)
        findings.left.push_back(
            {entry.key, "",
             mapping == nullptr ? "the mapping is gone" : "the mapping has another target now"});
      record_.Add(mapping == nullptr ? "(" + segment.target + ")" : mapping->name, std::move(findings));
      continue;
    }
    TargetUndo target(*mapping, run_.force, Claims(*mapping));
    UndoFindings findings = target.UndoEntries(segment.columns, segment.entries, [&](const RowText &key) {
      return record_.IsLeft(mapping->name, key);
    });
    record_.Add(mapping->name, std::move(findings));
  }
  return true;
}

void Undo::UndoJournal() {
  while (UndoBatch()) Commit();
  Commit();
}

void Undo::RemoveInserted() {
  for (auto mapping = run_.migration.mappings.rbegin(); mapping != run_.migration.mappings.rend();
       ++mapping) {
    if (mapping->ledger != "packed") continue;
    std::optional<InsertedRows> inserted;
    {
      pg::SnapshotScope snapshot;
      inserted.emplace(mapping->id, run_.id);
    }
    if (inserted->size() == 0) continue;
    for (bool more = true; more;) {
      pg::Context context("redis_migrate undo");
      pg::SwitchContext in_context(context.get());
      RequireFamilies();
      pg::CheckConstraintsAtOnce();
      pg::SetForTransaction("synchronous_commit", "off");
      UndoFindings findings;
      more = TargetUndo(*mapping, run_.force, Claims(*mapping)).RemoveInserted(*inserted, findings);
      record_.Add(mapping->name, std::move(findings));
      Commit();
    }
    UndoCounts const &counts = record_.counts().at(mapping->name);
    if (!run_.dry_run && counts.left_alone + counts.failed == 0) InsertedRows::Forget(mapping->id, run_.id);
    Commit();
    if (!run_.dry_run) PackedLedger::Merge(mapping->id);
    Commit();
  }
}

void Undo::Report() const {
  UndoCounts const total = record_.total();
  auto count = [](int64 rows) { return std::to_string(rows); };
  pg::Report(NOTICE,
             "run " + count(run_.id) + (run_.dry_run ? " would be undone: " : " is undone: ") +
                 count(total.restored) + " rows restored, " + count(total.put_back) + " put back, " +
                 count(total.removed) + " removed, " + count(total.left_alone) + " left alone",
             "", "SELECT * FROM redis_migrate.undos WHERE run_id = " + count(run_.id) + ".");
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
    UndoJournal();
    RemoveInserted();
  };
  // The changes of a row are undone one upon the other, so that a dry run has to make them, and to roll them
  // back together.
  if (run_.dry_run)
    pg::InRolledBackSubtransaction(work);
  else
    work();
  record_.Finish(run_.dry_run);
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
  RunToUndo run;
  run.id = PG_GETARG_INT64(0);
  run.dry_run = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  run.force = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
  run.migration = LoadMigration(MigrationOf(run.id));
  Undo(std::move(run)).Execute();
  PG_RETURN_VOID();
}
