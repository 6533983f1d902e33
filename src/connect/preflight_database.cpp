#include "connect/preflight_database.h"

#include "pg/arguments.h"
#include "pg/guard.h"
#include "pg/identity.h"
#include "pg/spi.h"

namespace prm {

namespace {

void CheckSettings(const AddCheck &add) {
  auto setting = [](const char *name) {
    return std::string(
        pg::Call([&] { return const_cast<const char *>(GetConfigOptionByName(name, nullptr, false)); }));
  };
  if (setting("server_encoding") != "UTF8")
    add("server encoding", CheckStatus::kWarn, "the database has encoding " + setting("server_encoding"),
        "Keys and values that are not valid in it are rejected; UTF8 accepts the most.");
  else
    add("server encoding", CheckStatus::kOk, "UTF8", "");
  if (setting("statement_timeout") != "0")
    add("statement_timeout", CheckStatus::kWarn,
        "it is " + setting("statement_timeout") + " in this session, and covers a whole CALL of run",
        "SET statement_timeout = 0 in the session that runs the migration. A run that it ends goes on at "
        "the next CALL.");
  else
    add("statement_timeout", CheckStatus::kOk, "not set", "");
  if (setting("idle_in_transaction_session_timeout") != "0")
    add("idle_in_transaction_session_timeout", CheckStatus::kOk, "set; a run is never idle in a transaction",
        "");
  if (pg::Call([] { return RecoveryInProgress(); }))
    add("recovery", CheckStatus::kFail, "this server is a standby and cannot be written to",
        "Run the migration on the primary.");
}

// Reports, of the mappings that the caller may see, those whose rows only one process at a time can store,
// and those with which no run can begin.
void CheckLedgers(const std::string &server, const AddCheck &add) {
  pg::Spi spi;
  std::vector<std::string> migrations;
  int64 full = 0;
  {
    const pg::Rows mappings = pg::Spi::Execute(
        R"sql(SELECT m.migration, m.mapping, m.ledger, m.ledger_reason
              FROM redis_migrate.mappings AS m
              JOIN redis_migrate.migrations AS g ON g.migration OPERATOR(pg_catalog.=) m.migration
              WHERE g.server OPERATOR(pg_catalog.=) $1
              ORDER BY m.migration, m.mapping)sql",
        {pg::SqlParam::Text(server)});
    for (uint64 i = 0; i < mappings.size(); ++i) {
      migrations.push_back(mappings[i].Text(0));
      if (mappings[i].Text(2) != "full") continue;
      ++full;
      add("ledger", CheckStatus::kWarn,
          "mapping \"" + mappings[i].Text(1) + "\" of migration \"" + mappings[i].Text(0) +
              "\" has a full ledger: " + mappings[i].Text(3),
          "One process at a time stores its rows. If the reason can be removed, do so, and call "
          "redis_migrate.alter_mapping.");
    }
  }
  if (!migrations.empty() && full == 0) add("ledger", CheckStatus::kOk, "no mapping has a full ledger", "");
  pg::AsExtensionOwner as_owner;
  const pg::Rows lost = pg::Spi::Execute(
      R"(
SELECT migration, mapping FROM redis_migrate.mapping AS m
WHERE migration = ANY ($1) AND ledger = 'packed' AND ledger_mark IS NOT NULL
AND EXISTS (SELECT FROM redis_migrate.ledger_segment AS s WHERE s.mapping_id = m.mapping_id)
AND CASE WHEN EXISTS (SELECT FROM redis_migrate.ledger_secret)
         THEN ledger_mark <> redis_migrate.row_hash(mapping_id) ELSE true END
ORDER BY migration, mapping)",
      {pg::SqlParam::TextArray(migrations)});
  for (uint64 i = 0; i < lost.size(); ++i)
    add("ledger secret", CheckStatus::kFail,
        "the packed ledger of mapping \"" + lost[i].Text(1) + "\" of migration \"" + lost[i].Text(0) +
            "\" was made with another secret",
        "Restore the row of redis_migrate.ledger_secret, or let the ledger begin anew by "
        "redis_migrate.alter_mapping.");
}

}  // namespace

void CheckDatabase(const std::string &server, const AddCheck &add) {
  CheckSettings(add);
  CheckLedgers(server, add);
}

}  // namespace prm
