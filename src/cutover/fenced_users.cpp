#include "cutover/fenced_users.h"

#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// Whether one of the families of a cutover c is PostgreSQL's now.
constexpr char kHolds[] = R"sql(EXISTS (
    SELECT
    FROM unnest(c.patterns) AS p (pattern)
    WHERE (SELECT f.state
           FROM redis_migrate.family_change AS f
           WHERE f.migration = c.migration AND f.pattern = p.pattern
           ORDER BY f.change_id DESC
           LIMIT 1) IN ('postgres', 'both')))sql";

// The rows of fenced_user, u, of cutovers, c, that a record ($1) may give back.
std::string CandidatesOf(const CutoverRecord &record) {
  if (record.parameters().to_state != "redis") return "u.returned_at IS NULL AND u.cutover_id = $1";
  return R"sql(u.returned_at IS NULL AND c.state = 'completed' AND c.to_state <> 'redis'
               AND EXISTS (SELECT FROM redis_migrate.cutover AS r
                           WHERE r.cutover_id = $1 AND r.migration = c.migration AND r.patterns && c.patterns))sql";
}

// The newest of other cutovers that hold a user u, at its node first. `others` says which o, c count, and
// `migration` is a parameter: those of its server count at every node.
std::string OtherHolder(const std::string &others, const std::string &migration, const std::string &holds) {
  return R"sql((SELECT o.cutover_id
                 FROM redis_migrate.fenced_user AS o
                 JOIN redis_migrate.cutover AS c USING (cutover_id)
                 JOIN redis_migrate.migration AS g USING (migration)
                 CROSS JOIN LATERAL (SELECT o.node = u.node AND o.address = u.address AS is_there) AS m
                 WHERE o.username = u.username AND o.returned_at IS NULL AND )sql" +
         others + R"sql(
                     AND (m.is_there OR g.server = (SELECT server FROM redis_migrate.migration
                                                    WHERE migration = )sql" +
         migration + R"sql())
                     AND (c.state = 'running' OR c.state = 'completed' AND ()sql" +
         holds + R"sql())
                 ORDER BY m.is_there DESC, o.cutover_id DESC
                 LIMIT 1))sql";
}

// Fenced users, each once, with the rules from before; $2 is this database's instance.
std::string UsersOf(const std::string &condition) {
  return R"sql((SELECT u.node, u.address, u.username, (array_agg(u.rules ORDER BY u.cutover_id))[1] AS rules,
                      (array_agg(u.fenced_rules ORDER BY u.cutover_id DESC))[1] AS fenced_rules,
                      bool_and(c.instance = $2) AS is_ours
                  FROM redis_migrate.fenced_user AS u
                  JOIN redis_migrate.cutover AS c USING (cutover_id)
                  WHERE )sql" +
         condition + R"sql(
                  GROUP BY u.node, u.address, u.username) AS u)sql";
}

// A cutover that fenced the user at another master needs him fenced at this one, too: it is to give the
// rights back some day.
void HandOver(const FencedUser &user, int64 cutover_id) {
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.fenced_user (cutover_id, node, address, username, rules, fenced_rules)
            VALUES ($1, $2, $3, $4, $5, nullif($6, ''))
            ON CONFLICT (cutover_id, node, address, username) DO UPDATE
                SET rules = excluded.rules, fenced_rules = excluded.fenced_rules, returned_at = NULL,
                    trouble = NULL
                WHERE fenced_user.returned_at IS NOT NULL)sql",
      {SqlParam::Int8(cutover_id), SqlParam::Text(user.node), SqlParam::Text(user.address),
       SqlParam::Text(user.name), SqlParam::Text(user.rules), SqlParam::Text(user.fenced_rules)});
}

}  // namespace

void AddFencedUsers(const CutoverRecord &record, const std::vector<FencedUser> &users) {
  CommitToDisk();
  pg::AsExtensionOwner as_owner;
  for (const FencedUser &user : users) {
    // The rules that an earlier cutover has left are not there any more: somebody has given others. A restart
    // of the server gives back those from before it; the fence then still counts.
    Spi::Execute(
        R"sql(UPDATE redis_migrate.fenced_user AS u
              SET returned_at = clock_timestamp()
              FROM redis_migrate.cutover AS c
              WHERE c.cutover_id = u.cutover_id AND c.state = 'completed'
                  AND u.node = $1 AND u.address = $2 AND u.username = $3 AND u.returned_at IS NULL
                  AND u.fenced_rules <> $4
                  AND NOT (u.rules = $4 AND u.run_id IS DISTINCT FROM $5 AND )sql" +
            std::string(kHolds) + ")",
        {SqlParam::Text(user.node), SqlParam::Text(user.address), SqlParam::Text(user.name),
         SqlParam::Text(user.rules), SqlParam::Text(user.run_id)});
    Spi::Execute(
        R"sql(INSERT INTO redis_migrate.fenced_user (cutover_id, node, address, username, run_id, rules)
              SELECT $1, $2, $3, $4, $6,
                  coalesce((SELECT u.rules
                            FROM redis_migrate.fenced_user AS u
                            JOIN redis_migrate.cutover AS c USING (cutover_id)
                            WHERE u.node = $2 AND u.address = $3 AND u.username = $4 AND u.returned_at IS NULL
                                AND c.state IN ('running', 'completed')
                                AND coalesce(u.fenced_rules, $5) = $5
                            ORDER BY u.cutover_id
                            LIMIT 1), $5))sql",
        {SqlParam::Int8(record.id()), SqlParam::Text(user.node), SqlParam::Text(user.address),
         SqlParam::Text(user.name), SqlParam::Text(user.rules), SqlParam::Text(user.run_id)});
  }
}

void SaveFencedRules(const CutoverRecord &record, const std::vector<FencedUser> &users) {
  pg::AsExtensionOwner as_owner;
  for (const FencedUser &user : users)
    Spi::Execute(
        R"sql(UPDATE redis_migrate.fenced_user
              SET fenced_rules = nullif($4, '')
              WHERE cutover_id = $1 AND node = $2 AND username = $3)sql",
        {SqlParam::Int8(record.id()), SqlParam::Text(user.node), SqlParam::Text(user.name),
         SqlParam::Text(user.fenced_rules)});
}

UsersToReturn FindUsersToReturn(const CutoverRecord &record) {
  bool const is_undo = record.parameters().to_state != "redis";
  std::string const here = ThisDatabase();
  UsersToReturn found;
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      "SELECT u.node, u.address, u.username, u.rules, u.fenced_rules, u.is_ours, " +
          OtherHolder("o.cutover_id <> $1", "$3", std::string(is_undo ? "m.is_there OR " : "") + kHolds) +
          " FROM " + UsersOf(CandidatesOf(record)) + " ORDER BY u.username, u.node",
      {SqlParam::Int8(record.id()), SqlParam::Text(here), SqlParam::Text(record.parameters().migration)});
  std::vector<FencedUser> held;
  for (uint64 i = 0; i < rows.size(); ++i) {
    FencedUser const user = {rows[i].Text(0), rows[i].Text(1), rows[i].Text(2), rows[i].Text(3),
                             rows[i].Text(4)};
    if (!rows[i].IsNull(6)) {
      HandOver(user, rows[i].Int8(6));
      held.push_back(user);
    } else if (rows[i].Bool(5)) {
      found.users.push_back(user);
    } else if (std::count(found.of_others.begin(), found.of_others.end(), user.name) == 0) {
      found.of_others.push_back(user.name);
    }
  }
  SetReturned(record, held);
  return found;
}

void SetReturned(const CutoverRecord &record, const std::vector<FencedUser> &users) {
  pg::AsExtensionOwner as_owner;
  for (const FencedUser &user : users)
    Spi::Execute(
        R"sql(UPDATE redis_migrate.fenced_user AS u
              SET returned_at = clock_timestamp()
              FROM redis_migrate.cutover AS c
              WHERE c.cutover_id = u.cutover_id AND u.node = $2 AND u.address = $3 AND u.username = $4
                  AND NOT (c.state = 'completed' AND )sql" +
            std::string(kHolds) + ") AND " + CandidatesOf(record),
        {SqlParam::Int8(record.id()), SqlParam::Text(user.node), SqlParam::Text(user.address),
         SqlParam::Text(user.name)});
}

UsersLeft FindUsersLeft(const std::string &migration) {
  std::string const here = ThisDatabase();
  UsersLeft left;
  pg::AsExtensionOwner as_owner;
  auto const rows =
      Spi::Execute("SELECT u.node, u.address, u.username, u.rules, u.fenced_rules, u.is_ours, " +
                       OtherHolder("c.migration <> $1", "$1", kHolds) + " FROM " +
                       UsersOf("c.migration = $1 AND c.state = 'completed' AND u.returned_at IS NULL AND " +
                               std::string(kHolds)) +
                       " ORDER BY u.username, u.node, u.address",
                   {SqlParam::Text(migration), SqlParam::Text(here)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    FencedUser const user = {rows[i].Text(0), rows[i].Text(1), rows[i].Text(2), rows[i].Text(3),
                             rows[i].Text(4)};
    if (!rows[i].IsNull(6))
      HandOver(user, rows[i].Int8(6));
    else
      (rows[i].Bool(5) ? left.users : left.of_others).push_back(user);
  }
  return left;
}

std::vector<HeldUser> FindHeldUsers(const std::string &migration) {
  std::vector<HeldUser> held;
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::ExecuteKept(
      R"sql(SELECT DISTINCT ON (u.username, u.node, u.address)
                u.cutover_id, u.node, u.address, u.username, u.rules, u.fenced_rules, u.run_id,
                u.trouble
            FROM redis_migrate.fenced_user AS u
            JOIN redis_migrate.cutover AS c USING (cutover_id)
            WHERE c.migration = $1 AND c.state = 'completed' AND u.returned_at IS NULL AND )sql" +
          std::string(kHolds) + " ORDER BY u.username, u.node, u.address, u.cutover_id DESC",
      {SqlParam::Text(migration)});
  auto const text = [&](uint64 row, int column) {
    return rows[row].IsNull(column) ? std::string() : rows[row].Text(column);
  };
  for (uint64 i = 0; i < rows.size(); ++i)
    held.push_back({rows[i].Int8(0),
                    {text(i, 1), text(i, 2), text(i, 3), text(i, 4), text(i, 5), text(i, 6)},
                    text(i, 7)});
  return held;
}

void AddHeldUser(const HeldUser &held) {
  CommitToDisk();
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.fenced_user (cutover_id, node, address, username, rules, run_id)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (cutover_id, node, address, username) DO NOTHING)sql",
      {SqlParam::Int8(held.cutover_id), SqlParam::Text(held.user.node), SqlParam::Text(held.user.address),
       SqlParam::Text(held.user.name), SqlParam::Text(held.user.rules), SqlParam::Text(held.user.run_id)});
}

void UpdateHeldUser(const HeldUser &held) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.fenced_user
            SET fenced_rules = nullif($5, ''), run_id = $6, trouble = nullif($7, '')
            WHERE cutover_id = $1 AND node = $2 AND address = $3 AND username = $4)sql",
      {SqlParam::Int8(held.cutover_id), SqlParam::Text(held.user.node), SqlParam::Text(held.user.address),
       SqlParam::Text(held.user.name), SqlParam::Text(held.user.fenced_rules),
       SqlParam::Text(held.user.run_id), SqlParam::Text(held.trouble)});
}

}  // namespace prm
