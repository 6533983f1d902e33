// CALL redis_migrate.restore(…): writes what a migration has kept of keys to a Redis.
#include "mapping/catalog.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/encoding.h"
#include "pg/entry.h"
#include "pg/rollback.h"
#include "pg/session_lock.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "restore/reject_source.h"
#include "restore/restore_record.h"
#include "restore/restore_target.h"
#include "restore/row_source.h"
#include "store/archive_source.h"

namespace prm {

namespace {

using pg::Spi;

class FilterByPattern : public source::KeyFilter {
 public:
  explicit FilterByPattern(const std::optional<std::string> &pattern) {
    if (pattern) pattern_ = ParsePattern(*pattern);
  }
  source::KeyDecision Classify(int, Bytes key) override {
    bool const fits = !pattern_ || pattern_->MatchKey(key, match_) == Fit::kFits;
    return {fits ? source::Interest::kRead : source::Interest::kIgnore, 0};
  }

 private:
  std::optional<KeyPattern> pattern_;
  Match match_;
};

std::unique_ptr<source::Source> OpenSource(const RestoreRecord::Parameters &parameters,
                                           FilterByPattern &filter, const std::string &position) {
  size_t const batch_keys = pg::settings::batch_rows;
  if (parameters.source == "archive")
    return std::make_unique<ArchiveSource>(parameters.migration, filter, batch_keys, position);
  if (parameters.source == "rows")
    return std::make_unique<RowSource>(LoadMigration(parameters.migration), filter, batch_keys, position);
  return std::make_unique<RejectSource>(parameters.migration, filter, batch_keys, position);
}

class Restore {
 public:
  // Begins it, or continues an interrupted one. Commits.
  explicit Restore(const RestoreRecord::Parameters &parameters)
      : parameters_(parameters), record_(parameters) {
    Spi::Commit();
    if (record_.is_continued()) pg::Report(NOTICE, Name() + " continues where it was interrupted");
  }

  // Commits after each batch. Errors: those of the source and of RestoreTarget.
  void Execute() {
    sink::WriterOptions options;
    options.replaces = parameters_.replaces;
    options.is_dry = parameters_.is_dry;
    options.bytes_in_flight = static_cast<size_t>(pg::settings::bytes_in_flight_kb) * 1024;
    FilterByPattern filter(parameters_.pattern);
    RestoreTarget target(parameters_.server, options);
    auto const source = OpenSource(parameters_, filter, record_.position());
    source::Batch batch;
    while (pg::ValueOrThrow(source->Next(batch))) {
      Spi::Commit();
      std::vector<sink::WrittenKey> written;
      target.Write(batch.entries, written);
      record_.Add(batch.entries, written, target.TakeByCommands(), batch.position);
      Spi::Commit();
      keys_ += static_cast<int64>(batch.entries.size());
      TellProgress();
    }
    record_.Complete();
    Conclude(record_.Sum());
    Spi::Commit();
  }

  void Fail(const pg::Problem &problem) const {
    pg::RollBackAfter(problem);
    record_.Fail(problem.SqlState(), problem.message);
    Spi::Commit();
  }

 private:
  std::string Name() const {
    return "restore " + std::to_string(record_.id()) + " of migration \"" + parameters_.migration + "\"";
  }

  void TellProgress() {
    int64 const interval_ms = int64{pg::settings::progress_interval_s} * 1000;
    int64 const now_ms = pg::MonotonicMs();
    if (interval_ms == 0 || now_ms - told_ms_ < interval_ms) return;
    told_ms_ = now_ms;
    int64 const rate = keys_ * 1000 / std::max<int64>(now_ms - began_ms_, 1);
    pg::Report(NOTICE, Name() + ": " + std::to_string(keys_) + " keys, " + std::to_string(rate) + " keys/s");
  }

  void Conclude(const RestoreRecord::Summary &sum) const {
    std::string text = Name() + " to server \"" + parameters_.server + "\"" +
                       (parameters_.is_dry ? " would do: " : ": ") + std::to_string(sum.keys) + " keys, " +
                       std::to_string(sum.restored) + " restored, " + std::to_string(sum.exists) +
                       " exist already, " + std::to_string(sum.expired) + " expired, " +
                       std::to_string(sum.failed) + " failed";
    std::string detail;
    if (sum.by_commands > 0)
      detail = std::to_string(sum.by_commands) +
               " keys were written by the commands of their types, not by RESTORE.";
    if (sum.without_pending > 0)
      detail += (detail.empty() ? "" : " ") + std::to_string(sum.without_pending) +
                " streams lack pending entries that only RESTORE could write.";
    std::string const where = " WHERE restore_id = " + std::to_string(record_.id()) + ".";
    bool const is_whole = sum.failed == 0 && sum.without_pending == 0;
    pg::Report(is_whole ? NOTICE : WARNING, text, detail,
               sum.failed > 0   ? "SELECT * FROM redis_migrate.restore_failures" + where
               : sum.exists > 0 ? "Keys that exist are overwritten with replace => true."
                                : "");
  }

  RestoreRecord::Parameters parameters_;
  RestoreRecord record_;
  int64 keys_ = 0;
  int64 began_ms_ = pg::MonotonicMs();
  int64 told_ms_ = began_ms_;
};

}  // namespace

}  // namespace prm

// redis_migrate.restore(migration text, server name, source text, pattern text, replace boolean, dry_run
// boolean): see the SQL comment. Errors: 2D000 in a transaction block, 42501 not the owner or no USAGE on the
// server, 42704 no such migration or server, 22023, 55000 no mapping has a way back, 55006 another session
// restores keys of the migration, those of connections; 08006, 53200 and others when the server is lost or
// refuses all keys: the restore can then be continued.
PRM_FUNCTION(restore) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.restore commits after each batch");
  RestoreRecord::Parameters parameters;
  parameters.migration = pg::TextArgument(fcinfo, 0, "migration");
  if (PG_ARGISNULL(1)) throw pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "server must not be NULL");
  parameters.server = NameStr(*PG_GETARG_NAME(1));
  parameters.source = pg::TextArgument(fcinfo, 2, "source");
  pg::CheckKeyword(parameters.source, "source", {"archive", "rejects", "rows"});
  parameters.pattern = pg::OptionalTextArgument(fcinfo, 3);
  parameters.replaces = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
  parameters.is_dry = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
  pg::Spi spi(true);
  LoadMigration(parameters.migration);  // whose owner this must be
  ServerOptions(parameters.server, GetUserId());
  if (parameters.pattern) ParsePattern(*parameters.pattern);
  pg::SessionLock lock(pg::LockTagOfName(pg::kRestoreLocks, parameters.migration), ExclusiveLock);
  if (!lock.TryTake())
    throw pg::Failure(ERRCODE_OBJECT_IN_USE,
                      "another session restores keys of migration \"" + parameters.migration + "\"", "",
                      "SELECT * FROM redis_migrate.restores WHERE state = 'running' shows it.");
  Restore restore(parameters);
  try {
    restore.Execute();
  } catch (...) {
    restore.Fail(pg::CurrentProblem());
    throw;
  }
  PG_RETURN_VOID();
}
