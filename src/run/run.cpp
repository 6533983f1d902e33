// CALL redis_migrate.run(…): executes a migration in the session that calls it.
#include "run/run.h"

#include "ledger/ledger_settling.h"
#include "mapping/family_state.h"
#include "mapping/ledger_mark.h"
#include "mapping/named_errors.h"
#include "parts/worker_count.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/own_write.h"
#include "pg/rollback.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "run/dry_run.h"
#include "run/emptied_targets.h"
#include "run/prune_around.h"
#include "run/run_summary.h"
#include "store/archive_source.h"
#include "verify/verification.h"

namespace prm {
namespace {

using pg::Failure;
using pg::Spi;

// So few rows are removed whatever their share, if some stay: a small mapping may lose all but one.
constexpr int64 kFewRows = 100;

// Thrown to undo a prune that removed too much.
struct TooManyGone {};

// Whether a prune has removed more than so many percent.
bool IsMuch(const PruneResult &result, int limit) {
  int64 const deleted = result.counts.deleted;
  return (deleted > kFewRows || deleted == result.rows) && deleted * 100 > result.rows * limit;
}

}  // namespace

Run::Run(const std::string &name, RunParameters parameters)
    : lock_(name, parameters.waits),
      parameters_(std::move(parameters)),
      migration_(LoadSettled(name)),
      routing_(migration_, parameters_.priority, parameters_.mapping),
      record_(RunRecord::Begin(name, parameters_)),
      pass_(migration_, parameters_, routing_, record_),
      helpers_(new_helpers({Work::Kind::kRun, record_.id()})),
      first_level_(record_.level()) {
  NoteLastRun(record_.id());
  record_.AddMappings(routing_.MappingNames());
  record_.RemoveUnusedFiles();
  if (parameters_.live) EnsureLedgerSecret();  // what is archived is known by hashes, with no mapping, too
  Spi::Commit();
  if (record_.resumed())
    pg::Report(NOTICE, "resuming run " + std::to_string(record_.id()) + " of migration \"" + name +
                           "\" at level " + std::to_string(record_.level() + 1) + " of " +
                           std::to_string(routing_.levels()));
}

Migration Run::LoadSettled(const std::string &name) const {
  Migration migration = LoadMigration(name);
  auto selected = [&] { return Routing(migration, parameters_.priority, parameters_.mapping).Mappings(); };
  bool is_changed = false;
  for (const Mapping *mapping : selected()) is_changed = ChooseLedgerAnew(*mapping) || is_changed;
  if (is_changed) {
    Spi::Commit();  // the catalog is read as of the beginning of the transaction
    migration = LoadMigration(name);
  }
  for (const Mapping *mapping : selected()) SettleLedger(*mapping);
  if (!parameters_.dry_run) BeginAnewIfEmptied(name, selected());
  return migration;
}

void Run::Load(const std::function<void()> &between) {
  for (int level = record_.level(); level < routing_.levels(); ++level) {
    Read(level, between);
    pass_.RetryDeferred(level);
  }
  MergeLedgers(routing_);
  TellChangedRows(migration_.name, record_.id(), record_.ReadChangedRows());
  if (parameters_.prune) PruneMappings();
  if (parameters_.live) PruneArchive();
  AdvanceSequences();
}

void Run::Fail(const std::string &state, const pg::Problem &problem) {
  pg::RollBackAfter(problem);
  helpers_->Stop();
  record_.Finish(state, problem.SqlState(), problem.message);
  Spi::Commit();
}

void Run::Read(int level, const std::function<void()> &between) {
  bool const first = level == first_level_;
  bool const is_begun = level == record_.level() && !record_.position().empty();
  uint64 repeated = 0;
  bool asks_first = first;
  for (bool done = false; !done;) {
    std::optional<SourceDivision> source;
    // A snapshot by replication is read by the process that receives it.
    if (!is_begun && (parameters_.source == "scan" || parameters_.source == "rdb"))
      source.emplace(AskSource(level, std::exchange(asks_first, false)));
    if (!source || !Divide(level, *source)) {
      repeated = pass_.Read(level, is_begun ? record_.position() : parameters_.begin, first, {}, between);
      break;
    }
    done = ReadParts(level, *source, repeated);
  }
  if (repeated > 0)
    pg::Report(NOTICE,
               std::to_string(repeated) +
                   " slots of the cluster were read again, because they moved or their node was restarted or "
                   "replaced",
               "Keys of these slots are counted each time that they were read.");
}

SourceDivision Run::AskSource(int level, bool first) {
  SourceDivision source(PlaceOf(migration_, parameters_.source), level == first_level_, first);
  if (source.keys() >= 0) record_.SetEstimate(source.keys());
  Spi::Commit();
  return source;
}

bool Run::Divide(int level, const SourceDivision &source) {
  std::vector<PartTable::Part> parts = record_.PartsOf(level).Read();
  if (!StillHasAll(source, parts)) {
    pg::Report(NOTICE, "the parts of level " + std::to_string(level + 1) +
                           " are no longer those of the source: it is read again from its beginning");
    record_.DropParts(level);
    parts.clear();
  }
  int const wanted =
      parts.empty() ? CountWorkers(parameters_.workers, source, routing_.Mappings()) : CountUnread(parts);
  if (parts.empty() && wanted < 2) return false;
  if (parts.empty()) record_.BeginLevel(level);
  Spi::Commit();
  int const readers =
      1 + helpers_->StartUpTo(wanted - 1, parameters_.workers.has_value(), routing_.Mappings());
  if (parts.empty()) {
    std::vector<SourceDivision::Part> const fresh = source.Into(readers);
    if (fresh.size() < 2) return false;
    record_.PartsOf(level).Divide(fresh);
  }
  record_.PartsOf(level).SetReaders(readers);
  Spi::Commit();
  return true;
}

int Run::CountUnread(const std::vector<PartTable::Part> &parts) const {
  auto const unread =
      std::count_if(parts.begin(), parts.end(), [](const PartTable::Part &part) { return !part.done; });
  return std::min(static_cast<int>(unread), parameters_.workers.value_or(static_cast<int>(unread)));
}

bool Run::ReadParts(int level, const SourceDivision &source, uint64 &repeated) {
  pass_.ShareLedgers();
  try {
    repeated = LeadParts(pass_, record_, level, level == first_level_, parameters_.on_error == "stop");
  } catch (const pg::Failure &failure) {
    if (failure.sqlstate() != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE) throw;
    Spi::RollBack();
    helpers_->Stop();
    SourceDivision const now = AskSource(level, false);
    if (StillHasAll(now, record_.PartsOf(level).Read())) throw;
    Spi::Commit();
    return false;
  }
  helpers_->Stop();
  if (std::optional<int64> evicted = source.EvictedSince()) record_.AddEvicted(*evicted);
  Spi::Commit();
  return true;
}

void Run::PruneMappings() {
  std::vector<const Mapping *> const mappings = routing_.Mappings();
  std::set<const Mapping *> const selected(mappings.begin(), mappings.end());
  std::vector<const Mapping *> waiting;
  for (const Mapping *mapping : InDependencyOrder(migration_))
    if (selected.count(mapping)) waiting.insert(waiting.begin(), mapping);
  for (bool is_stuck = false; !waiting.empty() && !is_stuck;) {
    std::vector<const Mapping *> stuck;
    for (const Mapping *mapping : waiting)
      if (!PruneMapping(*mapping, false)) stuck.push_back(mapping);
    is_stuck = stuck.size() == waiting.size();
    waiting = std::move(stuck);
  }
  for (const Mapping *mapping : waiting) PruneMapping(*mapping, true);
}

bool Run::PruneMapping(const Mapping &mapping, bool around_stuck) {
  try {
    PruneNow(mapping, around_stuck);
  } catch (const pg::PgError &error) {
    if (!IsFaultOfRows(mapping, error)) NamingMapping(mapping, [] { throw; });
    if (!around_stuck) return false;
    // The rows fail only together.
    std::string const why = pg::SqlStateText(error.sqlstate()) + ": " + error.what();
    record_.SetPruneOutcome(mapping.name, "refused", why);
    Spi::Commit();
    pg::Report(WARNING, "mapping \"" + mapping.name + "\" was not pruned: " + why);
  } catch (const Failure &) {
    NamingMapping(mapping, [] { throw; });
  }
  return true;
}

void Run::PruneArchive() {
  PruneResult result;
  pg::InSubtransaction([&] {
    std::tie(result.counts.deleted, result.rows) = Archive(migration_.name).Prune(record_.id());
    if (!parameters_.force) RequireFewDeleted("the archive", result);
  });
  Spi::Commit();
}

void Run::RequireFewDeleted(const std::string &what, const PruneResult &result) const {
  bool const is_refused = result.outcome == "refused";
  int const limit = pg::settings::live_delete_limit;
  if (!is_refused && !IsMuch(result, limit)) return;
  throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                what + " would lose " + std::to_string(is_refused ? result.rows : result.counts.deleted) +
                    " of its " + std::to_string(result.rows) + " rows",
                "The snapshot lacks their keys, and pg_redis_migrate.live_delete_limit is " +
                    std::to_string(limit) + " %. An emptied Redis, or the wrong one, would look like this.",
                "If the keys are gone on purpose: SELECT redis_migrate.start(" +
                    pg::QuoteLiteral(migration_.name) + ", live => true, force => true).");
}

void Run::PruneNow(const Mapping &mapping, bool around_stuck) {
  PruneResult result;
  try {
    pg::InSubtransaction([&] {
      Spi::Execute("SET CONSTRAINTS ALL IMMEDIATE");
      if (LockOwnedFamilies(migration_.name).count(mapping.pattern) > 0) {
        result.outcome = "kept";
        result.why = "its family belongs to PostgreSQL";
        return;
      }
      if (record_.HasSkippedOwned(mapping.pattern)) {
        result.outcome = "kept";
        result.why = "its family belonged to PostgreSQL while keys were read";
        return;
      }
      bool const may_empty = parameters_.force || (parameters_.is_flushed && mapping.on_flush == "delete");
      result = around_stuck ? PruneAround(mapping, record_.id(), may_empty)
                            : Prune(mapping, record_.id(), may_empty);
      if (may_empty) return;
      if (parameters_.live) return RequireFewDeleted("mapping \"" + mapping.name + "\"", result);
      if (IsMuch(result, pg::settings::prune_limit)) throw TooManyGone();
    });
  } catch (const TooManyGone &) {
    result.outcome = "refused";
    result.why = "the run would have deleted " + std::to_string(result.counts.deleted) + " of its " +
                 std::to_string(result.rows) + " rows, more than pg_redis_migrate.prune_limit, " +
                 std::to_string(pg::settings::prune_limit) + " %";
    result.counts = {};
    result.stuck.clear();
  }
  Tally tally;
  tally.rows[mapping.name] = result.counts;
  record_.Save(tally, record_.level(), record_.position());
  bool const went_nothing = !result.stuck.empty() && result.counts.deleted == 0;
  record_.SetPruneOutcome(mapping.name, went_nothing ? "refused" : result.outcome,
                          result.why.empty() ? result.stuck : result.why);
  Spi::Commit();
  TellPruned(mapping, result);
}

void Run::TellPruned(const Mapping &mapping, const PruneResult &result) const {
  if (result.counts.changed_here > 0)
    pg::Report(WARNING,
               "prune removed " + std::to_string(result.counts.changed_here) + " rows of mapping \"" +
                   mapping.name + "\" that were changed here since they were stored",
               "Their keys are gone from Redis.");
  if (!result.stuck.empty())
    pg::Report(WARNING, "mapping \"" + mapping.name + "\" was not pruned completely: " + result.stuck,
               "Letters and digits of its key columns are shown as x. The next prune tries such rows again.",
               "CALL redis_migrate.verify(" + pg::QuoteLiteral(migration_.name) +
                   ") tells which rows have lost their keys.");
  if (result.outcome == "refused")
    pg::Report(WARNING, "mapping \"" + mapping.name + "\" was not pruned: " + result.why,
               "An emptied Redis, or the wrong server or database, would look like this.",
               "To delete these rows, CALL redis_migrate.run(" + pg::QuoteLiteral(migration_.name) +
                   ", mapping => " + pg::QuoteLiteral(mapping.name) + ", prune => true, force => true).");
  else if (!result.why.empty())
    pg::Report(NOTICE, "mapping \"" + mapping.name + "\" was not pruned: " + result.why);
}

void Run::AdvanceSequences() {
  for (const Mapping *mapping : routing_.Mappings()) {
    Target target = LoadTargetRelation(*mapping);
    if (target.kind != TargetKind::kLocal) continue;
    for (const TargetColumn &column : target.columns) {
      if (column.type != INT4OID && column.type != INT8OID && column.type != INT2OID) continue;
      std::string const name = pg::QuoteIdentifier(column.name);
      Spi::Execute(
          R"sql(SELECT CASE WHEN m.highest OPERATOR(pg_catalog.>)
                          coalesce(pg_catalog.pg_sequence_last_value(s.sequence), 0)
                       THEN pg_catalog.setval(s.sequence, m.highest) END
                FROM (SELECT q.sequence, d.seqmin, d.seqmax
                      FROM (SELECT pg_catalog.pg_get_serial_sequence($1, $2)::pg_catalog.regclass AS sequence) AS q
                          JOIN pg_catalog.pg_sequence AS d ON d.seqrelid OPERATOR(pg_catalog.=) q.sequence
                      WHERE d.seqincrement OPERATOR(pg_catalog.>) 0
                          AND pg_catalog.has_sequence_privilege(q.sequence, 'UPDATE')
                          AND pg_catalog.has_sequence_privilege(q.sequence, 'USAGE')
                      OFFSET 0) AS s,
                    LATERAL (SELECT pg_catalog.max(target.)sql" +
              name + ") AS highest FROM " + target.name + " AS target WHERE target." + name +
              " OPERATOR(pg_catalog.>=) s.seqmin AND target." + name +
              " OPERATOR(pg_catalog.<=) s.seqmax) AS m",
          {pg::SqlParam::Text(target.name), pg::SqlParam::Text(column.name)});
    }
  }
  Spi::Commit();
}

void Run::Conclude() {
  RunRecord::Sums sums = record_.ReadSums();
  if (!sums.unbalanced.empty()) {
    record_.Finish("unbalanced", pg::SqlStateText(ERRCODE_DATA_CORRUPTED),
                   "the sums differ: " + sums.unbalanced);
    Spi::Commit();
    concluded_ = true;
    throw Failure(
        ERRCODE_DATA_CORRUPTED,
        "run " + std::to_string(record_.id()) + " of migration \"" + migration_.name + "\" does not add up",
        sums.unbalanced + ".",
        "SELECT * FROM redis_migrate.run_counts WHERE run_id = " + std::to_string(record_.id()) + ".");
  }
  record_.Finish("completed", std::nullopt, std::nullopt);
  Spi::Commit();
  concluded_ = true;
  record_.RemoveUnusedFiles();
  TellOutcomes("run " + std::to_string(record_.id()) + " of migration \"" + migration_.name + "\" completed",
               record_.id(), sums);
  TellRows(record_, migration_.name);
  if (sums.evicted > 0)
    pg::Report(WARNING, "Redis evicted " + std::to_string(sums.evicted) + " keys while it was read",
               "Its memory was full. The application's writes may have caused that, or replies that Redis "
               "had to hold.",
               "Raise maxmemory during the run, or set its policy to noeviction.");
}

namespace {

// Runs, and records an error before it passes it on to the caller.
void ExecuteRun(const std::string &name, const RunParameters &parameters) {
  Run run(name, parameters);
  try {
    run.Load();
    run.Conclude();
  } catch (const StoppedByReject &) {
    run.Fail("stopped", pg::CurrentProblem());
    throw;
  } catch (...) {
    if (!run.concluded()) run.Fail("failed", pg::CurrentProblem());
    throw;
  }
}

// A dry run: one transaction that leaves nothing but its report.
void ExecuteDryRun(const std::string &name, const RunParameters &parameters, int64 max_keys) {
  MigrationLock lock(name);
  Migration migration = LoadMigration(name);
  Spi::Commit();
  DryRun dry_run(migration, parameters.source, parameters.priority, parameters.mapping, max_keys);
  dry_run.Play();
  RunRecord record = RunRecord::Begin(name, parameters);
  NoteLastRun(record.id());
  record.AddMappings(dry_run.routing().MappingNames());
  Tally report = dry_run.tally();
  record.Save(report, 0, "");
  record.Finish("completed", std::nullopt, std::nullopt);
  RunRecord::Sums sums = record.ReadSums();
  sums.seconds = 0;  // that of the report; reading came first
  Spi::Commit();
  TellOutcomes("dry run " + std::to_string(record.id()) + " of migration \"" + name + "\", nothing was kept",
               record.id(), sums);
}

// A dry run with prune: a verification reads all keys, and finds the rows that have lost theirs.
void TellPrunable(const std::string &name, const RunParameters &parameters) {
  Verification::Parameters wanted;
  wanted.migration = name;
  wanted.source = parameters.source;
  wanted.mapping = parameters.mapping;
  wanted.priority = parameters.priority;
  wanted.workers = 1;
  Verification verification(wanted);
  try {
    verification.Execute();
  } catch (...) {
    verification.Fail(pg::CurrentProblem());
    throw;
  }
  for (const auto &[mapping, rows] : verification.ExtraRows())
    pg::Report(NOTICE, "prune would remove " + std::to_string(rows) + " rows of mapping \"" + mapping + "\"",
               "Rows of keys that are rejected are among them, and would stay.");
}

}  // namespace
}  // namespace prm

// redis_migrate.run(migration text, dry_run boolean, priority text, mapping text, source text, on_error text,
// prune boolean, max_keys bigint, force boolean, workers integer): see the SQL comment. Errors: 2D000 in a
// transaction block, 55006 already running, 42501 not the owner, 08006 Redis is gone, XX001 sums differ, and
// those of the mappings.
PRM_FUNCTION(run) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.run commits after each batch");
  std::string name = pg::TextArgument(fcinfo, 0, "migration");
  RunParameters parameters;
  parameters.dry_run = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  parameters.priority = pg::OptionalTextArgument(fcinfo, 2);
  parameters.mapping = pg::OptionalTextArgument(fcinfo, 3);
  std::optional<std::string> source = pg::OptionalTextArgument(fcinfo, 4);
  parameters.on_error = pg::TextArgument(fcinfo, 5, "on_error");
  parameters.prune = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);
  int64 max_keys = PG_ARGISNULL(7) ? 10000 : PG_GETARG_INT64(7);
  if (max_keys < 0) throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "max_keys must not be negative");
  parameters.force = !PG_ARGISNULL(8) && PG_GETARG_BOOL(8);
  parameters.workers = WorkersArgument(fcinfo, 9);
  pg::CheckKeyword(parameters.on_error, "on_error", {"continue", "stop"});
  if (source) CheckSource(*source);
  pg::Spi spi(true);
  pg::OwnWrite const own_write;
  Migration const migration = LoadMigration(name);  // before its lock: only the owner may take it
  parameters.source = source ? *source : migration.source;
  if (parameters.prune && parameters.source == "archive")
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "prune needs source 'scan', 'rdb' or 'replication'",
                      "The archive does not say which keys are gone from Redis.");
  RequireSource(migration, parameters.source);
  if (parameters.source == "rdb")
    parameters.begin = source::RdbFilePosition::StartOf(ServerFile(migration.file, GetUserId())).ToString();
  if (parameters.dry_run)
    ExecuteDryRun(name, parameters, max_keys);
  else
    ExecuteRun(name, parameters);
  if (parameters.dry_run && parameters.prune) TellPrunable(name, parameters);
  PG_RETURN_VOID();
}
