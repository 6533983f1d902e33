#include "cutover/cutover_record.h"

#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/instance.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// A copy of the database on the same server is not the one that began it, either.
std::string ThisDatabase() { return pg::ThisInstance() + "/" + std::to_string(MyDatabaseId); }

// What Redis is about to be told must not be forgotten in a crash: the commit is on disk, whatever the
// session has set. A setting that also waits for standbys stays.
void CommitToDisk() {
  if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF) pg::SetForTransaction("synchronous_commit", "local");
}

}  // namespace

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

std::optional<CutoverRecord> CutoverRecord::Find(const std::string &condition, const std::string &migration,
                                                 const std::string &argument) {
  std::string const here = ThisDatabase();
  auto const rows = Spi::Execute(
      "SELECT cutover_id, patterns, to_state, fence, step, deadline > clock_timestamp(), instance FROM "
      "redis_migrate.cutover WHERE migration = $1 AND " +
          condition + " ORDER BY cutover_id DESC LIMIT 1",
      {SqlParam::Text(migration), SqlParam::Text(argument)});
  if (rows.size() == 0) return std::nullopt;
  CutoverRecord record;
  record.id_ = rows[0].Int8(0);
  record.parameters_ = {migration, rows[0].TextArray(1), rows[0].Text(2), rows[0].Text(3)};
  record.step_ = rows[0].Text(4);
  record.may_be_paused_ = !rows[0].IsNull(5) && rows[0].Bool(5);
  record.is_of_here_ = rows[0].Text(6) == here;
  return record;
}

std::optional<CutoverRecord> CutoverRecord::FindUnfinished(const std::string &migration) {
  std::string const here = ThisDatabase();
  pg::AsExtensionOwner as_owner;
  std::optional<CutoverRecord> record = Find("state = 'running' AND $2 = $2", migration, here);
  if (record && !Find("state = 'running' AND instance = $2", migration, here))
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "another server or database has begun cutover " + std::to_string(record->id_) + " of migration \"" +
            migration + "\"",
        "This one is a copy of it, a restored backup or a promoted standby. To undo the "
        "cutover here would end the pause and the fence of that one.",
        "If that one is gone: UPDATE redis_migrate.cutover SET state = 'undone' WHERE cutover_id "
        "= " +
            std::to_string(record->id_) +
            ", as a superuser; then give the users in redis_migrate.fenced_user their rules back "
            "with ACL SETUSER.");
  return record;
}

std::optional<CutoverRecord> CutoverRecord::FindLast(const std::string &migration,
                                                     const std::string &pattern) {
  pg::AsExtensionOwner as_owner;
  return Find(
      R"sql(state = 'completed' AND to_state <> 'redis' AND $2 = ANY (patterns)
            AND NOT EXISTS (
                SELECT
                FROM redis_migrate.cutover AS back
                WHERE back.migration = $1 AND back.cutover_id > cutover.cutover_id
                    AND back.state = 'completed' AND back.to_state = 'redis' AND $2 = ANY (back.patterns)))sql",
      migration, pattern);
}

void CutoverRecord::Take(const std::string &step) {
  CommitToDisk();
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.cutover SET step = $2 WHERE cutover_id = $1",
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

void CutoverRecord::AddUsers(const std::vector<FencedUser> &users) const {
  CommitToDisk();
  pg::AsExtensionOwner as_owner;
  for (const FencedUser &user : users)
    Spi::Execute(
        R"sql(INSERT INTO redis_migrate.fenced_user (cutover_id, node, username, rules)
              SELECT $1, $2, $3,
                  coalesce((SELECT u.rules
                            FROM redis_migrate.fenced_user AS u
                            JOIN redis_migrate.cutover AS c USING (cutover_id)
                            WHERE u.node = $2 AND u.username = $3 AND c.migration = $5
                                AND c.state = 'completed'
                                AND EXISTS (
                                    SELECT
                                    FROM redis_migrate.family_change AS f
                                    WHERE f.migration = c.migration AND f.pattern = ANY (c.patterns)
                                        AND f.state IN ('postgres', 'both')
                                        AND NOT EXISTS (
                                            SELECT
                                            FROM redis_migrate.family_change AS later
                                            WHERE later.migration = f.migration
                                                AND later.pattern = f.pattern
                                                AND later.change_id > f.change_id)
                                        AND NOT EXISTS (
                                            SELECT
                                            FROM redis_migrate.cutover AS back
                                            WHERE back.migration = c.migration AND back.to_state = 'redis'
                                                AND back.state = 'completed'
                                                AND back.cutover_id > c.cutover_id
                                                AND f.pattern = ANY (back.patterns)))
                            ORDER BY c.cutover_id
                            LIMIT 1), $4))sql",
        {SqlParam::Int8(id_), SqlParam::Text(user.node), SqlParam::Text(user.name),
         SqlParam::Text(user.rules), SqlParam::Text(parameters_.migration)});
}

std::vector<FencedUser> CutoverRecord::ReadUsers() const {
  std::vector<FencedUser> users;
  pg::AsExtensionOwner as_owner;
  auto const rows =
      Spi::Execute("SELECT node, username, rules FROM redis_migrate.fenced_user WHERE cutover_id = $1",
                   {SqlParam::Int8(id_)});
  for (uint64 i = 0; i < rows.size(); ++i)
    users.push_back({rows[i].Text(0), rows[i].Text(1), rows[i].Text(2)});
  return users;
}

void CutoverRecord::SavePause(double paused_ms) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.cutover SET paused_ms = $2 WHERE cutover_id = $1",
               {SqlParam::Int8(id_), {FLOAT8OID, Float8GetDatum(paused_ms), false}});
}

void CutoverRecord::SaveCompared(int64 keys) const {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.cutover SET keys_compared = $2 WHERE cutover_id = $1",
               {SqlParam::Int8(id_), SqlParam::Int8(keys)});
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
