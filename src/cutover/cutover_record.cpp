#include "cutover/cutover_record.h"

#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/instance.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

std::string ThisDatabase() { return pg::ThisInstance() + "/" + std::to_string(MyDatabaseId); }

void CommitToDisk() {
  if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF) pg::SetForTransaction("synchronous_commit", "local");
}

LOCKTAG CutoverLockTag(const std::string &migration) {
  return pg::LockTagOfName(pg::kCutoverLocks, migration);
}

LOCKTAG CutoverServerLockTag(const std::string &server) {
  // No migration has such a name.
  return pg::LockTagOfName(pg::kCutoverLocks, "\xff" + server);
}

bool IsBeingCutOver(const std::string &migration) {
  LOCKTAG const tag = CutoverLockTag(migration);
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(R"sql(SELECT
                            FROM pg_locks
                            WHERE locktype = 'advisory' AND database = $1 AND classid = $2 AND objid = $3
                                AND objsubid = $4 AND granted)sql",
                      {SqlParam::OidOf(MyDatabaseId), SqlParam::OidOf(tag.locktag_field2),
                       SqlParam::OidOf(tag.locktag_field3), SqlParam::Int4(pg::kCutoverLocks)})
             .size() > 0;
}

std::vector<CutoverRecord::Unfinished> CutoverRecord::FindAllUnfinished() {
  pg::AsExtensionOwner as_owner;
  std::vector<Unfinished> found;
  auto const rows = Spi::ExecuteKept(
      R"sql(SELECT c.cutover_id, c.migration, redis_migrate.acting_role(g.owner), c.instance
            FROM redis_migrate.cutover AS c
            JOIN redis_migrate.migration AS g USING (migration)
            WHERE c.state = 'running' AND redis_migrate.acting_role(g.owner) IS NOT NULL)sql",
      {});
  if (rows.size() == 0) return found;
  std::string const here = ThisDatabase();
  for (uint64 i = 0; i < rows.size(); ++i) {
    if (rows[i].Text(3) != here) continue;
    found.push_back({rows[i].Int8(0), rows[i].Text(1), DatumGetObjectId(rows[i].Value(2)),
                     IsBeingCutOver(rows[i].Text(1))});
  }
  return found;
}

CutoverRecord::CutoverRecord(const Parameters &parameters) : parameters_(parameters), step_("checking") {
  std::string const instance = ThisDatabase();
  CommitToDisk();
  pg::AsExtensionOwner as_owner;
  id_ = Spi::Execute(
            R"sql(INSERT INTO redis_migrate.cutover (migration, patterns, to_state, fence, step, instance)
                  VALUES ($1, $2, $3, nullif($4, ''), $5, $6)
                  RETURNING cutover_id)sql",
            {SqlParam::Text(parameters_.migration), SqlParam::TextArray(parameters_.patterns),
             SqlParam::Text(parameters_.to_state), SqlParam::Text(parameters_.fence), SqlParam::Text(step_),
             SqlParam::Text(instance)})[0]
            .Int8(0);
}

std::optional<CutoverRecord> CutoverRecord::FindUnfinished(const std::string &migration) {
  std::string const here = ThisDatabase();
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT cutover_id, patterns, to_state, fence, step, deadline > clock_timestamp(), instance = $2
            FROM redis_migrate.cutover
            WHERE migration = $1 AND state = 'running'
            ORDER BY instance = $2 DESC, cutover_id DESC
            LIMIT 1)sql",
      {SqlParam::Text(migration), SqlParam::Text(here)});
  if (rows.size() == 0) return std::nullopt;
  CutoverRecord record;
  record.id_ = rows[0].Int8(0);
  record.parameters_ = {migration, rows[0].TextArray(1), rows[0].Text(2), rows[0].Text(3)};
  record.step_ = rows[0].Text(4);
  record.may_be_paused_ = !rows[0].IsNull(5) && rows[0].Bool(5);
  if (!rows[0].Bool(6))
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "another server or database has begun " + record.Name(),
        "This one is a copy of it, a restored backup or a promoted standby. To undo it here would end the "
        "pause and the fence of that one.",
        "If that one is gone: UPDATE redis_migrate.cutover SET state = 'undone' WHERE cutover_id = " +
            std::to_string(record.id_) +
            ", as a superuser; then give the users in redis_migrate.fenced_users their rules back with ACL "
            "SETUSER.");
  return record;
}

std::string CutoverRecord::Name() const {
  return (parameters_.to_state == "redis" ? "cutback " : "cutover ") + std::to_string(id_) +
         " of migration \"" + parameters_.migration + "\"";
}

void CutoverRecord::Take(const std::string &step) {
  CommitToDisk();
  SaveStep(step);
}

void CutoverRecord::TakeInPause(const std::string &step) {
  pg::SetForTransaction("synchronous_commit", "off");
  SaveStep(step);
}

void CutoverRecord::SaveStep(const std::string &step) {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.cutover
            SET step = $2, step_at = clock_timestamp(), steps_ms = steps_ms || jsonb_build_object(
                    step, round(extract(epoch FROM clock_timestamp() - step_at) * 1000, 1))
            WHERE cutover_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Text(step)});
  step_ = step;
}

void CutoverRecord::TakePause(int64 most_ms) {
  Take("pausing");
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.cutover
            SET deadline = clock_timestamp() + $2 * '1 ms'::interval
            WHERE cutover_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Int8(most_ms)});
  may_be_paused_ = true;
}

void CutoverRecord::SavePause(double paused_ms) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.cutover SET paused_ms = $2 WHERE cutover_id = $1",
               {SqlParam::Int8(id_), {FLOAT8OID, Float8GetDatum(paused_ms), false}});
}

void CutoverRecord::SaveCompared(int64 keys, int64 touched) const {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.cutover SET keys_compared = $2, keys_touched = nullif($3, -1)
            WHERE cutover_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Int8(keys), SqlParam::Int8(touched)});
}

void CutoverRecord::Finish(const std::string &state, const std::string &sqlstate,
                           const std::string &message) {
  CommitToDisk();
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.cutover
            SET state = $2, finished_at = clock_timestamp(), sqlstate = nullif($3, ''),
                message = nullif($4, '')
            WHERE cutover_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Text(state), SqlParam::Text(sqlstate), SqlParam::Text(message)});
}

}  // namespace prm

// redis_migrate.is_being_cut_over(migration text) → boolean: see the SQL comment. Errors: none.
PRM_FUNCTION(is_being_cut_over) {
  using namespace prm;
  pg::Spi spi;
  PG_RETURN_BOOL(IsBeingCutOver(pg::TextArgument(fcinfo, 0, "migration")));
}
