#include "mapping/catalog.h"

#include "pg/arguments.h"
#include "pg/encoding.h"
#include "pg/identity.h"
#include "pg/owner.h"
#include "pg/spi.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

int PriorityRank(const std::string &name) {
  for (int rank = 0; rank < 4; ++rank)
    if (name == kPriorityNames[rank]) return rank;
  throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "invalid priority \"" + name + "\"", "",
                "Valid priorities are critical, high, medium and low.");
}

void CheckSource(const std::string &source) {
  pg::CheckKeyword(source, "source", {"scan", "rdb", "replication", "archive"});
}

bool ReadsServer(const std::string &source) { return source == "scan" || source == "replication"; }

void RequireSource(const Migration &migration, const std::string &source) {
  const char *lacking = nullptr;
  if (ReadsServer(source) && migration.server.empty()) lacking = "server";
  if (source == "rdb" && migration.file.empty()) lacking = "file";
  if (lacking == nullptr) return;
  throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "source '" + source + "' needs a " + lacking, "",
                "Give the migration one: SELECT redis_migrate.alter_migration(" +
                    pg::QuoteLiteral(migration.name) + ", " + lacking + " => ...).");
}

namespace {

void LoadMappings(Migration &migration) {
  auto rows = Spi::Execute(
      R"sql(SELECT mapping_id, mapping, pattern, target, query, key_columns, priority, on_conflict,
                on_delete, mode, no_row, atomic, expand, types, databases, depends_on, exclusive, ledger,
                ledger_reason, search_path, timezone, datestyle, intervalstyle, target_relation,
                target_owner, trusted_roles::text[], on_expire, on_flush
            FROM redis_migrate.mapping
            WHERE migration = $1
            ORDER BY mapping_id)sql",
      {SqlParam::Text(migration.name)}, true);
  for (uint64 i = 0; i < rows.size(); ++i) {
    pg::Row row = rows[i];
    Mapping mapping;
    mapping.id = row.Int8(0);
    mapping.migration = migration.name;
    mapping.name = row.Text(1);
    mapping.pattern = row.Text(2);
    mapping.target = row.Text(3);
    mapping.query = row.Text(4);
    mapping.key_columns = row.TextArray(5);
    mapping.priority = row.Text(6);
    mapping.on_conflict = row.Text(7);
    mapping.on_delete = row.Text(8);
    mapping.mode = row.Text(9);
    mapping.no_row = row.Text(10);
    mapping.atomic = row.Text(11);
    mapping.expand = row.OptionalText(12);
    if (!row.IsNull(13)) mapping.types = row.TextArray(13);
    mapping.databases = row.OptionalInt4Array(14);
    mapping.depends_on = row.TextArray(15);
    mapping.exclusive = row.Bool(16);
    mapping.ledger = row.Text(17);
    mapping.ledger_reason = row.Text(18);
    mapping.search_path = row.Text(19);
    mapping.timezone = row.Text(20);
    mapping.datestyle = row.Text(21);
    mapping.intervalstyle = row.Text(22);
    mapping.accepted =
        pg::AcceptedRelation::FromText(DatumGetObjectId(row.Value(23)), row.Value(24), row.TextArray(25));
    mapping.on_expire = row.OptionalText(26);
    mapping.on_flush = row.Text(27);
    migration.mappings.push_back(std::move(mapping));
  }
}

void LoadChecks(Migration &migration) {
  auto rows = Spi::Execute(
      R"sql(SELECT mapping, check_name, condition
            FROM redis_migrate.mapping_check
            WHERE migration = $1
            ORDER BY mapping, check_name)sql",
      {SqlParam::Text(migration.name)}, true);
  for (uint64 i = 0; i < rows.size(); ++i)
    for (Mapping &mapping : migration.mappings)
      if (mapping.name == rows[i].Text(0)) mapping.checks.push_back({rows[i].Text(1), rows[i].Text(2)});
}

}  // namespace

Migration LoadMigration(const std::string &name, MigrationUse use) {
  Oid const user = GetUserId();
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT owner, server::text, source, unmapped, databases, file, journal
            FROM redis_migrate.migration
            WHERE migration = $1)sql",
      {SqlParam::Text(name)}, true);
  if (rows.size() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, "migration \"" + name + "\" does not exist", "",
                  "SELECT migration FROM redis_migrate.migrations lists those you own.");
  pg::Owner const owner(rows[0].Value(0));
  if (owner.role() != user && !(use == MigrationUse::kDrop && pg::HasOwnerRights(owner, user)))
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of migration \"" + name + "\"",
                  pg::OwnerDetail(owner), pg::OwnerHint(owner, "migration", name));
  Migration migration;
  migration.name = name;
  migration.server = rows[0].Text(1);
  migration.source = rows[0].Text(2);
  migration.unmapped = rows[0].Text(3);
  migration.databases = rows[0].OptionalInt4Array(4);
  migration.file = rows[0].Text(5);
  migration.journal = rows[0].Bool(6);
  LoadMappings(migration);
  for (Mapping &mapping : migration.mappings) mapping.journal = migration.journal;
  LoadChecks(migration);
  rows = Spi::Execute("SELECT pattern FROM redis_migrate.skip_pattern WHERE migration = $1 ORDER BY pattern",
                      {SqlParam::Text(name)}, true);
  for (uint64 i = 0; i < rows.size(); ++i) migration.skip_patterns.push_back(rows[i].Text(0));
  return migration;
}

void StoreTrusted(const Mapping &mapping) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.mapping
            SET trusted_roles = $2::redis_migrate.owner_role[]
            WHERE mapping_id = $1)sql",
      {SqlParam::Int8(mapping.id), SqlParam::TextArray(mapping.accepted->TrustedText())});
}

KeyPattern ParsePattern(const std::string &text) {
  return pg::ValueOrThrow(KeyPattern::Parse(pg::Utf8FromText(text, "a pattern"), text));
}

}  // namespace prm
