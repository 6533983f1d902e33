#include "run/run_summary.h"

#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/text_table.h"

namespace prm {
namespace {

int64 last_run_id = 0;  // 0: none yet

}  // namespace

void NoteLastRun(int64 run_id) { last_run_id = run_id; }

void TellOutcomes(const std::string &what, int64 run_id, const RunRecord::Sums &sums) {
  std::string equation;
  for (const char *outcome : kOutcomeNames) {
    auto found = sums.outcomes.find(outcome);
    equation += (equation.empty() ? "" : " + ") +
                std::to_string(found == sums.outcomes.end() ? 0 : found->second) + " " + outcome;
  }
  std::string rate;
  if (sums.seconds > 0)
    rate =
        ", " + std::to_string(static_cast<int64>(static_cast<double>(sums.read) / sums.seconds)) + " keys/s";
  if (sums.rows_deleted > 0) rate += "; rows deleted: " + std::to_string(sums.rows_deleted);
  bool rejects = !sums.reject_summary.empty();
  pg::Report(
      NOTICE, what + ": " + std::to_string(sums.read) + " read = " + equation + rate,
      rejects ? "Rejected: " + sums.reject_summary + "." : "",
      rejects ? "SELECT * FROM redis_migrate.rejects WHERE run_id = " + std::to_string(run_id) + "." : "");
}

void TellRows(const RunRecord &record, const std::string &migration) {
  pg::TextTable table({"mapping", "target", "inserted", "updated", "unchanged", "deleted"},
                      {false, false, true, true, true, true});
  for (const RunRecord::MappingRows &rows : record.ReadMappingRows())
    table.Add({rows.mapping, rows.target, std::to_string(rows.counts.inserted),
               std::to_string(rows.counts.updated), std::to_string(rows.counts.unchanged),
               std::to_string(rows.counts.deleted)});
  if (!table.empty())
    pg::Report(NOTICE, "rows of run " + std::to_string(record.id()), table.ToString(),
               "SELECT redis_migrate.report(" + pg::QuoteLiteral(migration) + ") tells the whole story.");
}

void TellChangedRows(const std::string &migration, int64 run_id,
                     const std::vector<RunRecord::ChangedRows> &found) {
  for (const RunRecord::ChangedRows &rows : found)
    pg::Report(WARNING,
               "run " + std::to_string(run_id) + " has written over " + std::to_string(rows.changed) +
                   " rows of mapping \"" + rows.mapping + "\" that were changed here, and put back " +
                   std::to_string(rows.deleted) + " that were deleted here, since they were stored",
               "Redis has other values than the application has given these rows.",
               "If they are the application's by now, have runs leave them alone: SELECT "
               "redis_migrate.set_family_state(" +
                   pg::QuoteLiteral(migration) + ", " + pg::QuoteLiteral(rows.pattern) + ", 'postgres').");
}

}  // namespace prm

// redis_migrate.last_run_id() -> the run that this session's last CALL of run, or of wait_for, executed or
// waited for; also if it ended in an error. Errors: 55000 if there was none.
PRM_FUNCTION(last_run_id) {
  if (prm::last_run_id == 0)
    throw prm::pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                           "last_run_id is not yet defined in this session", "",
                           "It is of the session that called redis_migrate.run or redis_migrate.wait_for; "
                           "redis_migrate.runs lists all runs.");
  PG_RETURN_INT64(prm::last_run_id);
}
