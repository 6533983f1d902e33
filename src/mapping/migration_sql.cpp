// The SQL that recreates a migration.
#include <map>

#include "mapping/catalog.h"
#include "mapping/routing.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/spi.h"

using namespace prm;

namespace {

// How the rows of each mapping become keys, where the owner has said it.
std::map<std::string, std::string> ReverseQueries(const Migration &migration) {
  pg::AsExtensionOwner as_owner;
  auto const rows = pg::Spi::Execute(
      R"sql(SELECT m.mapping, q.query
            FROM redis_migrate.reverse_query AS q
            JOIN redis_migrate.mapping AS m USING (mapping_id)
            WHERE m.migration = $1)sql",
      {pg::SqlParam::Text(migration.name)});
  std::map<std::string, std::string> queries;
  for (uint64 i = 0; i < rows.size(); ++i) queries.emplace(rows[i].Text(0), rows[i].Text(1));
  return queries;
}

}  // namespace

// redis_migrate.migration_sql(migration text) → text: the calls that recreate the migration. Errors: 42704,
// 42501.
PRM_FUNCTION(migration_sql) {
  pg::Spi spi;
  Migration migration = LoadMigration(pg::TextArgument(fcinfo, 0, "migration"));
  auto literal = [](const std::string &value) { return pg::QuoteLiteral(value); };
  auto texts = [&](const std::vector<std::string> &items) {
    std::string list;
    for (const std::string &item : items) list += (list.empty() ? "" : ", ") + literal(item);
    return "ARRAY[" + list + "]::text[]";
  };
  auto numbers = [](const std::vector<int> &items) {
    std::string list;
    for (int item : items) list += (list.empty() ? "" : ",") + std::to_string(item);
    return "'{" + list + "}'";
  };
  bool const is_superuser = pg::Call([] { return superuser(); });
  std::string name = literal(migration.name);
  std::string sql = "SELECT redis_migrate.create_migration(" + name + ", " +
                    (migration.server.empty() ? "NULL" : literal(migration.server)) + ", source => " +
                    literal(migration.source) + ", unmapped => " + literal(migration.unmapped) +
                    (migration.databases ? ", databases => " + numbers(*migration.databases) : "") +
                    (migration.file.empty() ? "" : ", file => " + literal(migration.file)) +
                    (migration.journal ? "" : ", journal => false") + ");\n";
  std::map<std::string, std::string> const reverse_queries = ReverseQueries(migration);
  for (const Mapping *mapping : InDependencyOrder(migration)) {
    // The settings under which the query was defined are part of what it means.
    sql += "SELECT pg_catalog.set_config('search_path', " + literal(mapping->search_path) +
           ", false);\nSET datestyle = " + literal(mapping->datestyle) +
           ";\nSET intervalstyle = " + literal(mapping->intervalstyle) + ";\n";
    sql += "SELECT redis_migrate.add_mapping(" + name + ", " + literal(mapping->name) + ", " +
           literal(mapping->pattern) + ", " + literal(mapping->target) + ",\n  " + literal(mapping->query) +
           ",\n  key_columns => " + texts(mapping->key_columns) + ", priority => " +
           literal(mapping->priority) + ", on_conflict => " + literal(mapping->on_conflict) +
           ", on_delete => " + literal(mapping->on_delete) + ", mode => " + literal(mapping->mode) +
           ", no_row => " + literal(mapping->no_row) + ", atomic => " + literal(mapping->atomic);
    if (mapping->on_expire) sql += ", on_expire => " + literal(*mapping->on_expire);
    if (mapping->on_flush != "pause") sql += ", on_flush => " + literal(mapping->on_flush);
    if (mapping->expand) sql += ", expand => " + literal(*mapping->expand);
    if (mapping->types) sql += ", types => " + texts(*mapping->types);
    if (mapping->databases) sql += ", databases => " + numbers(*mapping->databases);
    if (!mapping->depends_on.empty()) sql += ", depends_on => " + texts(mapping->depends_on);
    if (mapping->exclusive) sql += ", exclusive => true";
    // A superuser had to confirm it, and confirms it again; nobody else does.
    std::string const trust =
        is_superuser && !mapping->accepted->trusted.empty() ? ", trust_target => true" : "";
    sql += trust;
    sql += ", source_timezone => " + literal(mapping->timezone) + ");\n";
    for (const Check &check : mapping->checks)
      sql += "SELECT redis_migrate.add_check(" + name + ", " + literal(mapping->name) + ", " +
             literal(check.name) + ", " + literal(check.condition) + trust + ");\n";
    if (auto const reverse = reverse_queries.find(mapping->name); reverse != reverse_queries.end())
      sql += "SELECT redis_migrate.set_reverse_query(" + name + ", " + literal(mapping->name) + ",\n  " +
             literal(reverse->second) + trust + ");\n";
  }
  for (const std::string &pattern : migration.skip_patterns)
    sql += "SELECT redis_migrate.skip_keys(" + name + ", " + literal(pattern) + ");\n";
  pg::SwitchContext in_call(pg::EntryContext());  // SPI's memory goes with its connection
  return pg::TextDatum(sql);
}
