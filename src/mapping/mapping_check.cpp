#include "mapping/mapping_check.h"

#include "connect/server.h"
#include "connect/server_file.h"
#include "mapping/expiry_columns.h"
#include "mapping/ledger_choice.h"
#include "mapping/mapping_query.h"
#include "mapping/mapping_settings.h"
#include "mapping/routing.h"
#include "mapping/target_statements.h"
#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/user_sql.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

void CheckPlaces(const Migration &migration, const std::string &source) {
  if (!migration.server.empty()) ServerOptions(migration.server, GetUserId());
  if (!migration.file.empty()) ServerFile::Check(migration.file, GetUserId());
  if (ReadsServer(source) && migration.server.empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "source '" + source + "' needs a server");
  if (source == "rdb" && migration.file.empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "source 'rdb' needs a file", "",
                  "Give the path of the dump file on the database server: file => '/path/dump.rdb'.");
  if (migration.server.empty() && migration.file.empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "a migration needs a server or a file");
}

namespace {

// The patterns of a migration with the databases whose keys they take.
std::map<std::string, DatabaseNumbers> PatternsOf(const Migration &migration) {
  std::map<std::string, DatabaseNumbers> patterns;
  for (const std::string &text : migration.skip_patterns) patterns.emplace(text, std::nullopt);
  for (const Mapping &mapping : migration.mappings) patterns.emplace(mapping.pattern, mapping.databases);
  return patterns;
}

bool ShareOne(const DatabaseNumbers &a, const DatabaseNumbers &b) {
  return !a || std::any_of(a->begin(), a->end(), [&](int db) { return Takes(b, db); });
}

// Those of a mapping that the migration reads.
DatabaseNumbers DatabasesRead(const Migration &migration, const Mapping &mapping) {
  if (!migration.databases || !mapping.databases)
    return mapping.databases ? mapping.databases : migration.databases;
  std::vector<int> both;
  for (int db : *mapping.databases)
    if (Takes(migration.databases, db)) both.push_back(db);
  return both;
}

// Why no key can ever belong to a mapping; empty: some can.
std::string WhyKeyless(const Migration &migration, const Mapping &mapping) {
  DatabaseNumbers const databases = DatabasesRead(migration, mapping);
  if (databases && databases->empty()) return "The migration does not read its databases.";
  KeyPattern const pattern = ParsePattern(mapping.pattern);
  std::vector<std::pair<std::string, DatabaseNumbers>>
      first;  // patterns that take every key that this one fits
  for (const auto &[text, taken] : PatternsOf(migration)) {
    if (text == mapping.pattern) continue;
    KeyPattern const other = ParsePattern(text);
    if (KeyPattern::MoreSpecific(other, pattern) && other.Covers(pattern)) first.emplace_back(text, taken);
  }
  auto owner = [&](auto takes) {
    auto found =
        std::find_if(first.begin(), first.end(), [&](const auto &each) { return takes(each.second); });
    return found == first.end() ? "" : found->first;
  };
  std::string const of_all = owner([](const DatabaseNumbers &taken) { return !taken; });
  std::string text = of_all;
  for (size_t i = 0; of_all.empty() && databases && i < databases->size(); ++i) {
    text = owner([&](const DatabaseNumbers &taken) { return Takes(taken, (*databases)[i]); });
    if (text.empty()) break;
  }
  if (text.empty()) return "";
  return "Each key that fits pattern " + mapping.pattern + " belongs to pattern " + text +
         ", which has the same shape and takes precedence.";
}

}  // namespace

bool HasOverlaps(const Migration &migration, const Mapping &mapping) {
  KeyPattern const pattern = ParsePattern(mapping.pattern);
  for (const auto &[text, taken] : PatternsOf(migration))
    if (text != mapping.pattern && ShareOne(mapping.databases, taken) && pattern.Overlaps(ParsePattern(text)))
      return true;
  return false;
}

void ReportOverlaps(const Migration &migration, const KeyPattern &pattern, const DatabaseNumbers &databases) {
  constexpr size_t kMostNamed = 10;
  std::vector<std::string> others, owners;
  for (const auto &[text, taken] : PatternsOf(migration)) {
    if (text == pattern.text() || !ShareOne(databases, taken)) continue;
    KeyPattern const other = ParsePattern(text);
    if (!pattern.Overlaps(other)) continue;
    others.push_back(text);
    owners.push_back(KeyPattern::MoreSpecific(pattern, other) ? pattern.text() : text);
  }
  if (others.empty()) return;
  if (others.size() == 1)
    return pg::Report(NOTICE, "pattern " + pattern.text() + " overlaps with " + others[0],
                      "A key that fits both belongs to " + owners[0] + ", which is more specific.");
  std::string list;
  for (size_t i = 0; i < std::min(others.size(), kMostNamed); ++i)
    list += (i == 0 ? "" : "; ") + others[i] + (owners[i] == others[i] ? " goes first" : " goes second");
  if (others.size() > kMostNamed) list += "; and " + std::to_string(others.size() - kMostNamed) + " others";
  pg::Report(NOTICE,
             "pattern " + pattern.text() + " overlaps with " + std::to_string(others.size()) + " patterns",
             "A key that fits several belongs to the most specific: " + list + ".");
}

void WarnOfKeylessMappings(const Migration &before, const Migration &after, const std::string &changed) {
  std::set<std::string> known;
  for (const Mapping &mapping : before.mappings)
    if (mapping.name != changed && !WhyKeyless(before, mapping).empty()) known.insert(mapping.name);
  for (const Mapping &mapping : after.mappings) {
    std::string const why = WhyKeyless(after, mapping);
    if (why.empty() || known.count(mapping.name)) continue;
    pg::Report(WARNING, "mapping \"" + mapping.name + "\" will never get a key", why,
               "Change its pattern or its databases with redis_migrate.alter_mapping.");
  }
}

void CheckDatabases(const std::optional<std::vector<int>> &databases) {
  if (!databases) return;
  if (databases->empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "databases must not be empty", "",
                  "NULL stands for all databases.");
  for (int database : *databases)
    if (database < 0)
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                    "database " + std::to_string(database) + " is not a database number");
}

namespace {

void CheckOptions(const Mapping &mapping) {
  PriorityRank(mapping.priority);
  pg::CheckKeyword(mapping.mode, "mode", {"upsert", "update"});
  pg::CheckKeyword(mapping.no_row, "no_row", {"reject", "skip"});
  pg::CheckKeyword(mapping.atomic, "atomic", {"key", "element"});
  pg::CheckKeyword(mapping.on_flush, "on_flush", {"pause", "delete"});
  if (mapping.expand) pg::CheckKeyword(*mapping.expand, "expand", {"elements", "groups", "pending"});
  if (mapping.types) {
    if (mapping.types->empty())
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "types must not be empty", "",
                    "NULL stands for all types.");
    for (const std::string &type : *mapping.types)
      pg::CheckKeyword(type, "type", {"string", "list", "set", "zset", "hash", "stream", "array"});
  }
  CheckDatabases(mapping.databases);
  if (mapping.atomic == "element" && !mapping.expand)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "atomic 'element' needs expand",
                  "Without it a key is one element.", "Add expand => 'elements'.");
  if (!IsConflictKeyword(mapping.on_conflict))
    pg::ParseSetList(mapping.on_conflict, "on_conflict",
                     "Valid values are update, nothing, fill, and a SET list such as 'hits = target.hits + "
                     "excluded.hits'.");
  auto check_departure = [](const std::string &action, const char *property) {
    if (action == "delete" || action == "keep") return;
    pg::CheckSetList(
        action, property,
        "Valid values are delete, keep, and a SET list such as 'deleted_at = clock_timestamp()'.");
  };
  check_departure(mapping.on_delete, "on_delete");
  if (mapping.on_expire) check_departure(*mapping.on_expire, "on_expire");
}

// Mappings of a pattern are fed together, so they must have the same priority and databases.
void CheckSiblings(const Migration &migration, const Mapping &mapping) {
  for (const Mapping &other : migration.mappings) {
    if (other.pattern != mapping.pattern || other.name == mapping.name) continue;
    if (other.priority != mapping.priority || other.databases != mapping.databases)
      throw Failure(
          ERRCODE_INVALID_PARAMETER_VALUE,
          "mapping \"" + mapping.name + "\" must have the priority and databases of mapping \"" + other.name +
              "\"",
          "Both have pattern " + mapping.pattern + ": a key is stored by all of its mappings or by none.",
          "Use priority '" + other.priority +
              "' and the same databases. If other databases hold different keys under the same names, rename "
              "a capture of the pattern.");
  }
}

// An exclusive mapping owns every row of its target, so no other mapping may have that target.
void CheckExclusive(const std::string &migration, const Mapping &mapping) {
  pg::AsExtensionOwner as_owner;
  auto others = Spi::Execute(
      R"sql(SELECT migration, mapping
            FROM redis_migrate.mapping
            WHERE target = $1 AND (exclusive OR $2) AND (migration, mapping) <> ($3, $4)
            ORDER BY mapping_id
            LIMIT 1)sql",
      {SqlParam::Text(mapping.target), SqlParam::Bool(mapping.exclusive), SqlParam::Text(migration),
       SqlParam::Text(mapping.name)});
  if (others.size() > 0)
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                  "mapping \"" + mapping.name + "\" cannot share target " + mapping.target,
                  "Mapping \"" + others[0].Text(1) + "\" of migration \"" + others[0].Text(0) +
                      "\" has this target, and one of the two is exclusive: it owns all rows.",
                  "Omit exclusive from both: a ledger then records which key owns which row.");
}

// Over no rows.
void RunCheck(const MappingQuery &query, const std::string &condition) {
  pg::Tuplestore empty;
  pg::NamedRows named(kRowsName, query.row_desc(), empty.get());
  Spi::Execute(CheckStatement(condition));
}

// Beside the columns of a target statements have these columns of ours.
void RequireFreeNames(const Target &target) {
  std::vector<std::string> names = {"redis_row",     "redis_entry",    "redis_hash",    "redis_image",
                                    "redis_row_key", "redis_after_ms", "redis_until_ms"};
  for (size_t i = 1; i <= target.keys.size(); ++i) names.push_back("redis_key_" + std::to_string(i));
  for (const std::string &name : names)
    if (target.Find(name) != nullptr)
      throw Failure(ERRCODE_RESERVED_NAME, target.name + " has a column \"" + name + "\"",
                    "pg_redis_migrate uses this name for a column of its own.",
                    "Rename the column, or let the target be a view that calls it something else.");
}

// Checks a mapping whole against its siblings, its target and its query; decides which ledger it needs.
void CheckMapping(const Migration &migration, Mapping &mapping) {
  CheckOptions(mapping);
  KeyPattern pattern = ParsePattern(mapping.pattern);
  if (std::find(migration.skip_patterns.begin(), migration.skip_patterns.end(), mapping.pattern) !=
      migration.skip_patterns.end())
    throw Failure(ERRCODE_DUPLICATE_OBJECT, "pattern " + mapping.pattern + " is declared by skip_keys", "",
                  "Use redis_migrate.unskip_keys first.");
  CheckSiblings(migration, mapping);
  Target target = LoadTarget(mapping);
  RequireFreeNames(target);
  BatchShape shape(pattern, ExpandFromName(mapping.expand));
  MappingQuery query(mapping, shape, target);
  pg::TrustCode(*mapping.accepted, query.used(), GetUserId());
  for (const Check &check : mapping.checks) RunCheck(query, check.condition);
  // A mapping that inserts no rows deletes none.
  if (mapping.mode == "update" && mapping.on_delete == "delete") mapping.on_delete = "keep";
  if (mapping.mode == "update" && mapping.on_expire == "delete") mapping.on_expire = "keep";
  TargetStatements statements(mapping, target, query.facts().columns);
  if (!IsConflictKeyword(mapping.on_conflict)) statements.Check(query.row_desc());
  CheckDeleteStatement(target.name, mapping.on_delete);
  if (mapping.on_expire) {
    CheckDeleteStatement(target.name, *mapping.on_expire);
    if (ExpiryColumns(query.facts()).empty())
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "mapping \"" + mapping.name + "\" cannot have on_expire",
                    "Its rows do not tell when their keys expire.",
                    "Add a column of type timestamptz to " + target.name +
                        ", and let the query copy expires_at of redis_batch to it as it is.");
  }
  for (const std::string &warning : query.facts().warnings)
    pg::Report(WARNING, "mapping \"" + mapping.name + "\" may not repeat", warning);
  if (mapping.exclusive && !RowsTellKeysApart(mapping, pattern, query.facts()))
    throw Failure(
        ERRCODE_INVALID_PARAMETER_VALUE, "mapping \"" + mapping.name + "\" cannot be exclusive",
        "Two keys could yield the same row: each capture, the element and, unless databases names a "
        "single one, db must stand unchanged in key_columns.",
        "Add databases => '{0}', add the missing columns to key_columns, or omit exclusive: a ledger then "
        "records which key owns which row.");
  CheckExclusive(migration.name, mapping);
  LedgerChoice choice = ChooseLedger(mapping, pattern, target, query.facts());
  if (choice.ledger == "full" && mapping.ledger != "full")
    pg::Report(NOTICE, "mapping \"" + mapping.name + "\" has a full ledger",
               "It records which key each row came from, and one process at a time stores rows, because " +
                   choice.reason + ".",
               choice.hint);
  mapping.ledger = std::move(choice.ledger);
  mapping.ledger_reason = std::move(choice.reason);
}
}  // namespace

Migration With(Migration migration, const Mapping &mapping) {
  auto old = std::find_if(migration.mappings.begin(), migration.mappings.end(),
                          [&](const Mapping &m) { return m.name == mapping.name; });
  if (old != migration.mappings.end())
    *old = mapping;
  else
    migration.mappings.push_back(mapping);
  return migration;
}

void CheckUnderSettings(const Migration &migration, Mapping &mapping) {
  MappingSettings settings(mapping);
  CheckMapping(migration, mapping);
  InDependencyOrder(With(migration, mapping));
}

void CheckCondition(Mapping &mapping, const std::string &condition) {
  pg::CheckExpression(condition, "condition");
  MappingSettings settings(mapping);
  Target target = LoadTargetRelation(mapping);
  BatchShape shape(ParsePattern(mapping.pattern), ExpandFromName(mapping.expand));
  MappingQuery query(mapping, shape, target);
  RunCheck(query, condition);
  pg::TrustCode(*mapping.accepted, query.used(), GetUserId());
}

}  // namespace prm
