// The SQL functions that define migrations.
#include "mapping/define.h"
#include "mapping/family_state.h"
#include "mapping/followable.h"
#include "mapping/ledger_mark.h"
#include "mapping/mapping_check.h"
#include "mapping/migration_lock.h"
#include "mapping/routing.h"
#include "mapping/target.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/owner.h"
#include "pg/spi.h"
#include "pg/worker_role.h"

namespace prm {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

// Notes a change of the definition: interrupted runs begin again rather than continue with other mappings.
// is_of_own_keys: a mapping has come or gone, and other mappings have the keys that they had. Then a live run
// goes on.
void Touch(const std::string &migration, bool is_of_own_keys = false) {
  Spi::Execute(
      R"sql(UPDATE redis_migrate.migration
            SET changed_at = clock_timestamp(),
                altered_at = CASE WHEN $2 THEN altered_at ELSE clock_timestamp() END
            WHERE migration = $1)sql",
      {SqlParam::Text(migration), SqlParam::Bool(is_of_own_keys)});
}

// Loads a migration and keeps others from running or changing it until this transaction ends. Otherwise a run
// could continue with a definition that has changed meanwhile. Errors: those of LoadMigration, 55006.
Migration LoadForChange(const std::string &name, MigrationUse use = MigrationUse::kAny) {
  LoadMigration(name, use);  // only its owner may take the lock
  LockForChange(name);
  return LoadMigration(name, use);
}

// Likewise, for a mapping that comes or goes: a live run makes way. is_followed: there is one.
Migration LoadForMapping(const std::string &name, bool *is_followed = nullptr) {
  LoadMigration(name, MigrationUse::kAny);
  bool const found = LockBesideLiveRun(name);
  if (is_followed != nullptr) *is_followed = found;
  return LoadMigration(name, MigrationUse::kAny);
}

std::string Setting(const char *name) {
  return pg::Call([&] { return GetConfigOption(name, false, false); });
}

void UseSessionSettings(Mapping &mapping, const std::string &source_timezone) {
  mapping.search_path = Setting("search_path");
  mapping.timezone = source_timezone;
  mapping.datestyle = Setting("datestyle");
  mapping.intervalstyle = Setting("intervalstyle");
}

constexpr char kMappingColumns[] =
    "pattern, target, query, key_columns, priority, on_conflict, on_delete, mode, no_row, atomic, expand, "
    "types, databases, depends_on, exclusive, ledger, ledger_reason, "
    "search_path, timezone, datestyle, intervalstyle, target_relation, target_owner, trusted_roles, "
    "on_expire, on_flush";

std::vector<SqlParam> MappingParams(const std::string &migration, const Mapping &mapping) {
  return {SqlParam::Text(migration),
          SqlParam::Text(mapping.name),
          SqlParam::Text(mapping.pattern),
          SqlParam::Text(mapping.target),
          SqlParam::Text(mapping.query),
          SqlParam::TextArray(mapping.key_columns),
          SqlParam::Text(mapping.priority),
          SqlParam::Text(mapping.on_conflict),
          SqlParam::Text(mapping.on_delete),
          SqlParam::Text(mapping.mode),
          SqlParam::Text(mapping.no_row),
          SqlParam::Text(mapping.atomic),
          SqlParam::OptionalText(mapping.expand),
          SqlParam::OptionalTextArray(mapping.types),
          SqlParam::Int4Array(mapping.databases),
          SqlParam::TextArray(mapping.depends_on),
          SqlParam::Bool(mapping.exclusive),
          SqlParam::Text(mapping.ledger),
          SqlParam::Text(mapping.ledger_reason),
          SqlParam::Text(mapping.search_path),
          SqlParam::Text(mapping.timezone),
          SqlParam::Text(mapping.datestyle),
          SqlParam::Text(mapping.intervalstyle),
          SqlParam::OidOf(mapping.accepted->relation),
          SqlParam::Text(mapping.accepted->owner.ToText()),
          SqlParam::TextArray(mapping.accepted->TrustedText()),
          SqlParam::OptionalText(mapping.on_expire),
          SqlParam::Text(mapping.on_flush)};
}

// Nothing is known any more of how entries were made.
void MarkLedgerAsNew(int64 mapping_id) {
  Spi::Execute(
      "UPDATE redis_migrate.mapping SET ledger_mark = NULL, ledger_keys = NULL WHERE mapping_id = $1",
      {SqlParam::Int8(mapping_id)});
}

// Forgets which rows of the target are the mapping's; the rows stay. Returns whether any was known.
bool ForgetRows(int64 mapping_id) {
  MarkLedgerAsNew(mapping_id);
  uint64 forgotten = 0;
  for (const char *table : {"ledger", "ledger_batch", "ledger_segment"})
    forgotten += Spi::Execute(std::string("DELETE FROM redis_migrate.") + table + " WHERE mapping_id = $1",
                              {SqlParam::Int8(mapping_id)})
                     .processed();
  return forgotten > 0;
}

Mapping &FindMapping(Migration &migration, const std::string &name) {
  for (Mapping &mapping : migration.mappings)
    if (mapping.name == name) return mapping;
  throw Failure(ERRCODE_UNDEFINED_OBJECT,
                "mapping \"" + name + "\" of migration \"" + migration.name + "\" does not exist");
}

// Calls reset(property) for each name in argument n, which are those of arguments that NULL leaves alone.
// Errors: 22023 for others, and for one that is given as well.
template <typename Reset>
void ForEachReset(FunctionCallInfo fcinfo, int n, const std::map<std::string, int> &properties, Reset reset) {
  for (const std::string &property :
       pg::OptionalTextArrayArgument(fcinfo, n).value_or(std::vector<std::string>())) {
    auto found = properties.find(property);
    std::string names;
    for (const auto &[name, argument] : properties) names += (names.empty() ? "" : ", ") + name;
    if (found == properties.end())
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "property \"" + property + "\" cannot be reset", "",
                    "These can: " + names + ".");
    if (!PG_ARGISNULL(found->second))
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "property \"" + property + "\" is both given and reset");
    reset(property);
  }
}

bool BoolArgument(FunctionCallInfo fcinfo, int n) { return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n); }

// Runs the checks of a definition. What nobody has confirmed can be confirmed with the definition.
template <typename Checks>
void CheckConfirmably(Checks checks) {
  try {
    checks();
  } catch (const pg::UnconfirmedRelation &unconfirmed) {
    throw Failure(unconfirmed.sqlstate(), unconfirmed.message(), unconfirmed.detail(),
                  "If that is intended: the same call with trust_target => true.");
  }
}

// Indexes hold several names in one entry, whose size is limited.
void CheckName(const std::string &name, const std::string &of) {
  constexpr size_t kMostBytes = 200;
  if (name.empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "the name of a " + of + " must not be empty");
  if (name.size() > kMostBytes)
    throw Failure(ERRCODE_NAME_TOO_LONG, "the name of a " + of + " is too long",
                  "It has " + std::to_string(name.size()) + " bytes, at most " + std::to_string(kMostBytes) +
                      " are possible.");
}

std::string NameArgument(FunctionCallInfo fcinfo, int n) {
  if (PG_ARGISNULL(n)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "server must not be NULL");
  return NameStr(*PG_GETARG_NAME(n));
}

// Errors: 55000.
void RequireNoReverseFeed(const Mapping &mapping) {
  pg::AsExtensionOwner as_owner;
  if (Spi::Execute("SELECT FROM redis_migrate.reverse_mapping WHERE mapping_id = $1",
                   {SqlParam::Int8(mapping.id)})
          .size() > 0)
    throw Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "changes of mapping \"" + mapping.name + "\" go back to Redis", "",
        "Stop that first: SELECT redis_migrate.stop_reverse(" + pg::QuoteLiteral(mapping.migration) + ").");
}

}  // namespace
}  // namespace prm

using namespace prm;
using pg::Failure;
using pg::Spi;
using pg::SqlParam;

// redis_migrate.create_migration(migration text, server name, source text, unmapped text, databases
// integer[], file text, journal boolean). Errors: 42710 it exists, 42704 no such server, 42501 no USAGE on it
// or no right to read files of the server, 42602 a relative path, 22023.
PRM_FUNCTION(create_migration) {
  std::string name = pg::TextArgument(fcinfo, 0, "migration");
  Migration migration;
  migration.name = name;
  if (!PG_ARGISNULL(1)) migration.server = NameArgument(fcinfo, 1);
  migration.file = pg::OptionalTextArgument(fcinfo, 5).value_or("");
  std::string source = pg::TextArgument(fcinfo, 2, "source");
  std::string unmapped = pg::TextArgument(fcinfo, 3, "unmapped");
  bool const journal = PG_ARGISNULL(6) || PG_GETARG_BOOL(6);
  auto databases = pg::OptionalInt4ArrayArgument(fcinfo, 4);
  CheckName(name, "migration");
  CheckSource(source);
  pg::CheckKeyword(unmapped, "unmapped", {"archive", "reject"});
  CheckDatabases(databases);
  CheckPlaces(migration, source);
  Oid owner = GetUserId();
  pg::Spi spi;
  pg::ClaimOwnership(owner);
  pg::AsExtensionOwner as_owner;
  if (Spi::Execute("SELECT FROM redis_migrate.migration WHERE migration = $1", {SqlParam::Text(name)})
          .size() > 0)
    throw Failure(ERRCODE_DUPLICATE_OBJECT, "migration \"" + name + "\" already exists", "",
                  "Choose another name; names are shared by all users of a database.");
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.migration (
                migration, owner, server, source, unmapped, databases, file, journal)
            VALUES ($1, redis_migrate.stamp_owner($2), NULLIF($3, '')::name, $4, $5, $6, NULLIF($7, ''), $8))sql",
      {SqlParam::Text(name), SqlParam::OidOf(owner), SqlParam::Text(migration.server), SqlParam::Text(source),
       SqlParam::Text(unmapped), SqlParam::Int4Array(databases), SqlParam::Text(migration.file),
       SqlParam::Bool(journal)});
  pg::WarnOfRoleProblem(owner, "migration \"" + name + "\"");
  PG_RETURN_VOID();
}

// redis_migrate.alter_migration(migration text, server name, source text, unmapped text, databases
// integer[], file text, reset text[], journal boolean): NULL leaves a property as it is. Errors: as
// create_migration; 42501 not the owner.
PRM_FUNCTION(alter_migration) {
  pg::Spi spi;
  Migration migration = LoadForChange(pg::TextArgument(fcinfo, 0, "migration"));
  if (!PG_ARGISNULL(1)) migration.server = NameArgument(fcinfo, 1);
  migration.file = pg::OptionalTextArgument(fcinfo, 5).value_or(migration.file);
  std::string source = pg::OptionalTextArgument(fcinfo, 2).value_or(migration.source);
  std::string unmapped = pg::OptionalTextArgument(fcinfo, 3).value_or(migration.unmapped);
  auto databases = PG_ARGISNULL(4) ? migration.databases : pg::OptionalInt4ArrayArgument(fcinfo, 4);
  bool const journal = PG_ARGISNULL(7) ? migration.journal : PG_GETARG_BOOL(7);
  ForEachReset(fcinfo, 6, {{"databases", 4}}, [&](const std::string &) { databases.reset(); });
  CheckSource(source);
  pg::CheckKeyword(unmapped, "unmapped", {"archive", "reject"});
  CheckDatabases(databases);
  CheckPlaces(migration, source);
  Migration changed = migration;
  changed.databases = databases;
  WarnOfKeylessMappings(migration, changed);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.migration
            SET server = NULLIF($2, '')::name, source = $3, unmapped = $4, databases = $5,
                file = NULLIF($6, ''), journal = $7, changed_at = clock_timestamp(), altered_at = clock_timestamp()
            WHERE migration = $1)sql",
      {SqlParam::Text(migration.name), SqlParam::Text(migration.server), SqlParam::Text(source),
       SqlParam::Text(unmapped), SqlParam::Int4Array(databases), SqlParam::Text(migration.file),
       SqlParam::Bool(journal)});
  PG_RETURN_VOID();
}

// redis_migrate.add_mapping(…): see the SQL comment. Errors: those of CheckMapping.
PRM_FUNCTION(add_mapping) {
  pg::Spi spi;
  bool is_followed = false;
  Migration migration = LoadForMapping(pg::TextArgument(fcinfo, 0, "migration"), &is_followed);
  Mapping mapping;
  mapping.migration = migration.name;
  mapping.name = pg::TextArgument(fcinfo, 1, "mapping");
  mapping.pattern = pg::TextArgument(fcinfo, 2, "pattern");
  if (PG_ARGISNULL(3)) throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "target must not be NULL");
  mapping.target = QualifiedName(PG_GETARG_OID(3));
  mapping.query = pg::TextArgument(fcinfo, 4, "query");
  mapping.key_columns = pg::OptionalTextArrayArgument(fcinfo, 5).value_or(std::vector<std::string>());
  mapping.priority = pg::TextArgument(fcinfo, 6, "priority");
  mapping.on_conflict = pg::TextArgument(fcinfo, 7, "on_conflict");
  mapping.on_delete = pg::TextArgument(fcinfo, 8, "on_delete");
  mapping.mode = pg::TextArgument(fcinfo, 9, "mode");
  mapping.no_row = pg::TextArgument(fcinfo, 10, "no_row");
  mapping.atomic = pg::TextArgument(fcinfo, 11, "atomic");
  mapping.expand = pg::OptionalTextArgument(fcinfo, 12);
  mapping.types = pg::OptionalTextArrayArgument(fcinfo, 13);
  mapping.databases = pg::OptionalInt4ArrayArgument(fcinfo, 14);
  mapping.depends_on = pg::OptionalTextArrayArgument(fcinfo, 15).value_or(std::vector<std::string>());
  mapping.exclusive = !PG_ARGISNULL(16) && PG_GETARG_BOOL(16);
  mapping.on_expire = pg::OptionalTextArgument(fcinfo, 19);
  mapping.on_flush = pg::TextArgument(fcinfo, 20, "on_flush");
  for (const Mapping &other : migration.mappings)
    if (other.name == mapping.name)
      throw Failure(ERRCODE_DUPLICATE_OBJECT,
                    "mapping \"" + mapping.name + "\" of migration \"" + migration.name + "\" already exists",
                    "", "Use redis_migrate.alter_mapping to change it.");
  CheckName(mapping.name, "mapping");
  UseSessionSettings(mapping, pg::TextArgument(fcinfo, 17, "source_timezone"));
  ReportOverlaps(migration, ParsePattern(mapping.pattern), mapping.databases);
  mapping.accepted =
      pg::AcceptRelation(PG_GETARG_OID(3), mapping.target, GetUserId(), BoolArgument(fcinfo, 18));
  CheckConfirmably([&] { CheckUnderSettings(migration, mapping); });
  WarnOfKeylessMappings(migration, With(migration, mapping), mapping.name);
  if (is_followed) RequireFollowable(With(migration, mapping));
  if (mapping.ledger != "none") EnsureLedgerSecret();
  pg::AsExtensionOwner as_owner;
  Spi::Execute(std::string("INSERT INTO redis_migrate.mapping (migration, mapping, ") + kMappingColumns +
                   ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, "
                   "$18, $19, $20, $21, $22, $23, $24, $25::redis_migrate.owner_role, "
                   "$26::redis_migrate.owner_role[], $27, $28)",
               MappingParams(migration.name, mapping));
  Touch(migration.name, !HasOverlaps(migration, mapping));
  PG_RETURN_VOID();
}

// redis_migrate.alter_mapping(…): NULL leaves a property as it is; the session's settings are stored again
// when the query is given. Errors: as add_mapping; 55000 while its changes go back to Redis.
PRM_FUNCTION(alter_mapping) {
  pg::Spi spi;
  Migration migration = LoadForChange(pg::TextArgument(fcinfo, 0, "migration"));
  Mapping mapping = FindMapping(migration, pg::TextArgument(fcinfo, 1, "mapping"));
  RequireNoReverseFeed(mapping);
  Mapping const old = mapping;
  auto change = [&](int n, std::string &property) {
    if (auto given = pg::OptionalTextArgument(fcinfo, n)) property = *given;
  };
  change(2, mapping.pattern);
  if (!PG_ARGISNULL(3)) mapping.target = QualifiedName(PG_GETARG_OID(3));
  change(4, mapping.query);
  if (auto columns = pg::OptionalTextArrayArgument(fcinfo, 5)) mapping.key_columns = *columns;
  change(6, mapping.priority);
  change(7, mapping.on_conflict);
  change(8, mapping.on_delete);
  change(9, mapping.mode);
  change(10, mapping.no_row);
  change(11, mapping.atomic);
  if (auto expand = pg::OptionalTextArgument(fcinfo, 12)) mapping.expand = expand;
  if (auto types = pg::OptionalTextArrayArgument(fcinfo, 13)) mapping.types = types;
  if (auto databases = pg::OptionalInt4ArrayArgument(fcinfo, 14)) mapping.databases = databases;
  if (auto depends_on = pg::OptionalTextArrayArgument(fcinfo, 15)) mapping.depends_on = *depends_on;
  if (!PG_ARGISNULL(16)) mapping.exclusive = PG_GETARG_BOOL(16);
  if (auto on_expire = pg::OptionalTextArgument(fcinfo, 20)) mapping.on_expire = on_expire;
  change(21, mapping.on_flush);
  ForEachReset(fcinfo, 18,
               {{"expand", 12}, {"types", 13}, {"databases", 14}, {"depends_on", 15}, {"on_expire", 20}},
               [&](const std::string &property) {
                 if (property == "on_expire") mapping.on_expire.reset();
                 if (property == "expand") mapping.expand.reset();
                 if (property == "types") mapping.types.reset();
                 if (property == "databases") mapping.databases.reset();
                 if (property == "depends_on") mapping.depends_on.clear();
               });
  std::string source_timezone = pg::OptionalTextArgument(fcinfo, 17).value_or(mapping.timezone);
  if (!PG_ARGISNULL(4))
    UseSessionSettings(mapping, source_timezone);
  else
    mapping.timezone = source_timezone;
  if (mapping.pattern != old.pattern || mapping.databases != old.databases)
    ReportOverlaps(With(migration, mapping), ParsePattern(mapping.pattern), mapping.databases);
  if (mapping.pattern != old.pattern && LockOwnedFamilies(migration.name).count(old.pattern) > 0)
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "the keys of pattern " + old.pattern + " belong to PostgreSQL",
                  "Those of another pattern would be Redis' again, and runs would write over their rows.",
                  "If they may: SELECT redis_migrate.set_family_state(" + pg::QuoteLiteral(migration.name) +
                      ", " + pg::QuoteLiteral(old.pattern) + ", 'redis').");
  bool const is_confirmed = BoolArgument(fcinfo, 19);
  if (is_confirmed || !PG_ARGISNULL(3)) {
    mapping.accepted = pg::AcceptRelation(FindTarget(mapping), mapping.target, GetUserId(), is_confirmed);
    if (PG_ARGISNULL(3)) pg::KeepTrusted(*mapping.accepted, *old.accepted);  // for its reverse query
  }
  CheckConfirmably([&] { CheckUnderSettings(migration, mapping); });
  if (mapping.pattern != old.pattern || mapping.databases != old.databases)
    WarnOfKeylessMappings(migration, With(migration, mapping), mapping.name);
  bool const is_worthless = HasWorthlessEntries(old, mapping);
  if (mapping.ledger != "none") EnsureLedgerSecret();
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      std::string("UPDATE redis_migrate.mapping SET (") + kMappingColumns +
          ") = ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, "
          "$21, $22, $23, $24, $25::redis_migrate.owner_role, $26::redis_migrate.owner_role[], $27, $28) "
          "WHERE migration = $1 AND mapping = $2",
      MappingParams(migration.name, mapping));
  if (is_worthless && ForgetRows(mapping.id))
    pg::Report(NOTICE, "the ledger of mapping \"" + mapping.name + "\" begins anew",
               "The rows stay. Each becomes the mapping's again when a run meets its key.");
  // The next run makes entries of the one from those of the other.
  if (mapping.ledger != old.ledger) MarkLedgerAsNew(mapping.id);
  Touch(migration.name);
  PG_RETURN_VOID();
}

// redis_migrate.drop_mapping(migration text, mapping text). Errors: 42704, 42501, 2BP01 others depend on it,
// 55000 while its changes go back to Redis.
PRM_FUNCTION(drop_mapping) {
  pg::Spi spi;
  Migration migration = LoadForMapping(pg::TextArgument(fcinfo, 0, "migration"));
  Mapping mapping = FindMapping(migration, pg::TextArgument(fcinfo, 1, "mapping"));
  RequireNoReverseFeed(mapping);
  for (const Mapping &other : migration.mappings)
    if (std::find(other.depends_on.begin(), other.depends_on.end(), mapping.name) != other.depends_on.end())
      throw Failure(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                    "mapping \"" + other.name + "\" depends on mapping \"" + mapping.name + "\"", "",
                    "Drop \"" + other.name + "\" first, or change its depends_on.");
  pg::AsExtensionOwner as_owner;
  ForgetRows(mapping.id);
  Spi::Execute("DELETE FROM redis_migrate.mapping WHERE mapping_id = $1", {SqlParam::Int8(mapping.id)});
  Touch(migration.name, !HasOverlaps(migration, mapping));
  PG_RETURN_VOID();
}

// redis_migrate.add_check(migration text, mapping text, check_name text, condition text, trust_target
// boolean). Errors: 42710, and those of the condition.
PRM_FUNCTION(add_check) {
  pg::Spi spi;
  Migration migration = LoadForChange(pg::TextArgument(fcinfo, 0, "migration"));
  Mapping &mapping = FindMapping(migration, pg::TextArgument(fcinfo, 1, "mapping"));
  std::string check = pg::TextArgument(fcinfo, 2, "check_name");
  std::string condition = pg::TextArgument(fcinfo, 3, "condition");
  for (const Check &other : mapping.checks)
    if (other.name == check)
      throw Failure(ERRCODE_DUPLICATE_OBJECT,
                    "check \"" + check + "\" of mapping \"" + mapping.name + "\" already exists");
  CheckName(check, "check");
  mapping.checks.push_back({check, condition});
  LoadTargetRelation(mapping);  // what the target itself would run is for alter_mapping to confirm
  mapping.accepted->is_confirmed = BoolArgument(fcinfo, 4);
  CheckConfirmably([&] { CheckCondition(mapping, condition); });
  StoreTrusted(mapping);
  pg::AsExtensionOwner as_owner;
  Spi::Execute("INSERT INTO redis_migrate.mapping_check VALUES ($1, $2, $3, $4)",
               {SqlParam::Text(migration.name), SqlParam::Text(mapping.name), SqlParam::Text(check),
                SqlParam::Text(condition)});
  Touch(migration.name);
  PG_RETURN_VOID();
}

// redis_migrate.drop_check(migration text, mapping text, check_name text). Errors: 42704.
PRM_FUNCTION(drop_check) {
  pg::Spi spi;
  Migration migration = LoadForChange(pg::TextArgument(fcinfo, 0, "migration"));
  Mapping mapping = FindMapping(migration, pg::TextArgument(fcinfo, 1, "mapping"));
  std::string check = pg::TextArgument(fcinfo, 2, "check_name");
  pg::AsExtensionOwner as_owner;
  if (Spi::Execute(
          "DELETE FROM redis_migrate.mapping_check WHERE migration = $1 AND mapping = $2 AND check_name = $3",
          {SqlParam::Text(migration.name), SqlParam::Text(mapping.name), SqlParam::Text(check)})
          .processed() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT,
                  "check \"" + check + "\" of mapping \"" + mapping.name + "\" does not exist");
  Touch(migration.name);
  PG_RETURN_VOID();
}

// redis_migrate.skip_keys(migration text, pattern text). Errors: 42710 declared already, or mapped.
PRM_FUNCTION(skip_keys) {
  pg::Spi spi;
  Migration migration = LoadForChange(pg::TextArgument(fcinfo, 0, "migration"));
  KeyPattern pattern = ParsePattern(pg::TextArgument(fcinfo, 1, "pattern"));
  for (const std::string &other : migration.skip_patterns)
    if (other == pattern.text())
      throw Failure(ERRCODE_DUPLICATE_OBJECT, "pattern " + other + " is already declared");
  for (const Mapping &mapping : migration.mappings)
    if (mapping.pattern == pattern.text())
      throw Failure(ERRCODE_DUPLICATE_OBJECT,
                    "pattern " + mapping.pattern + " is used by mapping \"" + mapping.name + "\"");
  ReportOverlaps(migration, pattern, std::nullopt);
  Migration changed = migration;
  changed.skip_patterns.push_back(pattern.text());
  WarnOfKeylessMappings(migration, changed);
  pg::AsExtensionOwner as_owner;
  Spi::Execute("INSERT INTO redis_migrate.skip_pattern VALUES ($1, $2)",
               {SqlParam::Text(migration.name), SqlParam::Text(pattern.text())});
  Touch(migration.name);
  PG_RETURN_VOID();
}

// redis_migrate.unskip_keys(migration text, pattern text). Errors: 42704.
PRM_FUNCTION(unskip_keys) {
  pg::Spi spi;
  Migration migration = LoadForChange(pg::TextArgument(fcinfo, 0, "migration"));
  std::string pattern = pg::TextArgument(fcinfo, 1, "pattern");
  pg::AsExtensionOwner as_owner;
  if (Spi::Execute("DELETE FROM redis_migrate.skip_pattern WHERE migration = $1 AND pattern = $2",
                   {SqlParam::Text(migration.name), SqlParam::Text(pattern)})
          .processed() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, "pattern " + pattern + " is not declared by skip_keys");
  Touch(migration.name);
  PG_RETURN_VOID();
}

void prm::DropMigration(const std::string &name) {
  Migration migration = LoadForChange(name, MigrationUse::kDrop);
  pg::AsExtensionOwner as_owner;
  for (const Mapping &mapping : migration.mappings) ForgetRows(mapping.id);
  for (const char *table : {"journal", "journal_insert", "journal_value"})
    Spi::Execute(std::string("DELETE FROM redis_migrate.") + table +
                     " AS j USING redis_migrate.run AS r WHERE r.run_id = j.run_id AND r.migration = $1",
                 {SqlParam::Text(migration.name)});
  for (const char *table : {"run", "archived_key", "migration"})
    Spi::Execute(std::string("DELETE FROM redis_migrate.") + table + " WHERE migration = $1",
                 {SqlParam::Text(migration.name)});
}
