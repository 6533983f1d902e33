// redis_migrate.report(…): the story of a migration as text.
#include "mapping/target.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/text_table.h"

namespace prm {
namespace {

using pg::Spi;
using pg::SqlParam;

constexpr int64 kMostCounted = 1000000;

struct Column {
  const char *heading;
  bool is_number;
};

// A table of what a query over the report ($1) returns, under a title; nothing if it returns no row.
std::string Table(const std::string &title, const std::vector<Column> &columns, const std::string &sql,
                  const SqlParam &report) {
  pg::Rows const rows = Spi::Execute(sql, {report});
  if (rows.size() == 0) return "";
  std::vector<std::string> headings;
  std::vector<bool> right;
  for (const Column &column : columns) {
    headings.emplace_back(column.heading);
    right.push_back(column.is_number);
  }
  pg::TextTable table(std::move(headings), std::move(right));
  for (uint64 i = 0; i < rows.size(); ++i) {
    std::vector<std::string> cells;
    for (size_t c = 0; c < columns.size(); ++c) cells.push_back(rows[i].Text(static_cast<int>(c)));
    table.Add(std::move(cells));
  }
  return "\n" + title + "\n" + table.ToString() + "\n";
}

std::string Line(const std::string &sql, const SqlParam &report) {
  pg::Rows const rows = Spi::Execute(sql, {report});
  return rows.size() == 0 || rows[0].IsNull(0) ? "" : rows[0].Text(0) + "\n";
}

std::string Compose(const SqlParam &report) {
  std::string story = Line(
      R"sql(SELECT format('Migration %s: %s, source %s', $1->>'migration',
                          coalesce('server ' || ($1->>'server'), 'file ' || ($1->>'file')), $1->>'source'))sql",
      report);
  story += Line(
      R"sql(SELECT format('Audit %s of %s: %s keys in %s families', a->>'audit_id',
                          to_char((a->>'finished_at')::timestamptz, 'YYYY-MM-DD HH24:MI'), a->>'keys', a->>'families')
            FROM (SELECT nullif($1->'audit', 'null')) AS x (a)
            WHERE a IS NOT NULL)sql",
      report);
  story += Table("Runs",
                 {{"run", true},
                  {"source", false},
                  {"state", false},
                  {"started", false},
                  {"seconds", true},
                  {"read", true},
                  {"migrated", true},
                  {"archived", true},
                  {"skipped", true},
                  {"rejected", true},
                  {"vanished", true}},
                 R"sql(SELECT r->>'run_id', r->>'source',
                             (r->>'state') || CASE WHEN (r->>'dry_run')::boolean THEN ', dry' WHEN (r->>'live')::boolean THEN ', live' ELSE '' END,
                             to_char((r->>'started_at')::timestamptz, 'YYYY-MM-DD HH24:MI'), r->>'seconds', r->>'read',
                             r->>'migrated', r->>'archived', r->>'skipped', r->>'rejected', r->>'vanished'
                      FROM jsonb_array_elements($1->'runs') WITH ORDINALITY AS x (r, n)
                      ORDER BY n)sql",
                 report);
  story += Line(R"sql(SELECT format('Run %s ended with an error: %s', r->>'run_id', r->>'message')
                     FROM (SELECT $1->'runs'->0) AS x (r)
                     WHERE r->>'message' IS NOT NULL)sql",
                report);
  story += Table(
      "Rows of the last run, and in the tables now",
      {{"mapping", false},
       {"target", false},
       {"family", false},
       {"inserted", true},
       {"updated", true},
       {"unchanged", true},
       {"deleted", true},
       {"rows now", true}},
      R"sql(SELECT m->>'mapping', m->>'target', m->>'family', m->>'inserted', m->>'updated', m->>'unchanged',
                             m->>'deleted', m->>'rows'
                      FROM jsonb_array_elements($1->'mappings') WITH ORDINALITY AS x (m, n)
                      ORDER BY n)sql",
      report);
  story += Table(
      "Keys of the last run",
      {{"pattern", false},
       {"read", true},
       {"migrated", true},
       {"archived", true},
       {"skipped", true},
       {"rejected", true},
       {"vanished", true}},
      R"sql(SELECT coalesce(k->>'pattern', '(no mapping)'), k->>'read', k->>'migrated', k->>'archived', k->>'skipped',
                             k->>'rejected', k->>'vanished'
                      FROM jsonb_array_elements($1->'keys') WITH ORDINALITY AS x (k, n)
                      ORDER BY n)sql",
      report);
  story += Table(
      "Rejected by the last run",
      {{"rule", false}, {"mapping", false}, {"pattern", false}, {"keys", true}, {"such as", false}},
      R"sql(SELECT j->>'rule', j->>'mapping', coalesce(j->>'pattern', '(no mapping)'), j->>'keys', j->>'example'
                      FROM jsonb_array_elements($1->'rejects') WITH ORDINALITY AS x (j, n)
                      ORDER BY n)sql",
      report);
  story += Line(
      R"sql(SELECT E'\n' || format('Live sync: %s, %s bytes behind, %s commands applied', s->>'state',
                                   coalesce(s->>'lag_bytes', 'unknown'), coalesce(s->>'commands', '0'))
            FROM (SELECT nullif($1->'live', 'null')) AS x (s)
            WHERE s IS NOT NULL)sql",
      report);
  story += Line(
      R"sql(SELECT E'\n' || format('Verification %s of %s: %s', v->>'verification_id',
                                   to_char((v->>'started_at')::timestamptz, 'YYYY-MM-DD HH24:MI'),
                                   CASE WHEN (v->>'verified')::boolean THEN 'verified, ' || (v->>'keys_read') || ' keys'
                                        WHEN v->>'state' = 'completed'
                                        THEN 'not verified: ' || (SELECT string_agg(reason, '; ' ORDER BY n)
                                                                  FROM jsonb_array_elements_text(v->'reasons') WITH ORDINALITY AS y (reason, n))
                                        ELSE concat_ws(': ', v->>'state', v->>'message') END)
            FROM (SELECT nullif($1->'verification', 'null')) AS x (v)
            WHERE v IS NOT NULL)sql",
      report);
  story += Table(
      "Verified rows",
      {{"mapping", false},
       {"checked", true},
       {"equal", true},
       {"missing", true},
       {"extra", true},
       {"different", true},
       {"expiry differs", true},
       {"unsettled", true}},
      R"sql(SELECT c->>'mapping', c->>'checked', c->>'equal', c->>'missing', coalesce(c->>'extra', '-'), c->>'different',
                             c->>'expiry_differs', c->>'unsettled'
                      FROM jsonb_array_elements($1->'verification'->'counts') WITH ORDINALITY AS x (c, n)
                      WHERE jsonb_typeof($1->'verification') = 'object'
                      ORDER BY n)sql",
      report);
  story += Table("Cutovers",
                 {{"cutover", true},
                  {"to", false},
                  {"state", false},
                  {"started", false},
                  {"seconds", true},
                  {"ms held back", true},
                  {"keys compared", true},
                  {"families", false}},
                 R"sql(SELECT c->>'cutover_id', c->>'to_state', c->>'state',
                             to_char((c->>'started_at')::timestamptz, 'YYYY-MM-DD HH24:MI:SS'),
                             round(extract(epoch FROM (c->>'finished_at')::timestamptz - (c->>'started_at')::timestamptz), 1)::text,
                             c->>'paused_ms', c->>'keys_compared',
                             (SELECT string_agg(p, ', ') FROM jsonb_array_elements_text(c->'patterns') AS y (p))
                      FROM jsonb_array_elements($1->'cutovers') WITH ORDINALITY AS x (c, n)
                      ORDER BY n)sql",
                 report);
  story += Line(R"sql(SELECT format('Cutover %s: %s', c->>'cutover_id', c->>'message')
                     FROM (SELECT $1->'cutovers'->0) AS x (c)
                     WHERE c->>'message' IS NOT NULL)sql",
                report);
  story += Line(R"sql(SELECT E'\n' || format('Late writes: %s keys are not settled', $1->>'late_writes')
                     WHERE $1->>'late_writes' <> '0')sql",
                report);
  story += Line(
      R"sql(SELECT E'\n' || format('Reverse feed: %s, %s changes wait%s, %s rows rejected', r->>'state',
                                   coalesce(r->>'waiting', 'unknown'),
                                   CASE WHEN (r->>'needs_full')::boolean THEN ', all rows are to be written' END,
                                   r->>'rejected')
            FROM (SELECT nullif($1->'reverse', 'null')) AS x (r)
            WHERE r IS NOT NULL)sql",
      report);
  return story;
}

}  // namespace
}  // namespace prm

// redis_migrate.report(migration text) → text: see the SQL comment. Errors: 42704 for a migration that the
// caller does not see.
PRM_FUNCTION(report) {
  using namespace prm;
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::string story;
  {
    pg::Spi spi;
    pg::LocalSettings settings;
    settings.Set("search_path", "pg_catalog, pg_temp");
    pg::Rows const report = Spi::Execute("SELECT redis_migrate.report_json($1)", {SqlParam::Text(name)});
    if (report[0].IsNull(0))
      throw pg::Failure(ERRCODE_UNDEFINED_OBJECT, "migration \"" + name + "\" does not exist", "",
                        "SELECT migration FROM redis_migrate.migrations lists those you own.");
    story = Compose({JSONBOID, report[0].Value(0), false});
  }
  return pg::TextDatum(story);
}

// redis_migrate.count_rows(relation regclass) → bigint: see the SQL comment.
PRM_FUNCTION(count_rows) {
  using namespace prm;
  Oid const relation = PG_GETARG_OID(0);
  std::optional<int64> rows;
  {
    pg::Spi spi;
    pg::LocalSettings settings;
    settings.Set("search_path", "pg_catalog, pg_temp");
    // A view or a policy would run its owner's functions as the caller.
    auto may_count = [&] {
      pg::Rows const may = Spi::Execute(
          R"sql(SELECT has_table_privilege(c.oid, 'SELECT') AND NOT c.relrowsecurity AND c.relkind IN ('r', 'p', 'm')
                FROM pg_class AS c
                WHERE c.oid = $1)sql",
          {SqlParam::OidOf(relation)});
      return may.size() > 0 && !may[0].IsNull(0) && may[0].Bool(0);
    };
    bool may = may_count();
    if (may) {
      pg::Call([&] { LockRelationOid(relation, AccessShareLock); });
      may = may_count();
    }
    if (may) {
      std::string const name = QualifiedName(relation);
      rows = Spi::Execute("SELECT pg_catalog.count(*) FROM (SELECT FROM " + name + " LIMIT $1) AS counted",
                          {SqlParam::Int8(kMostCounted + 1)})[0]
                 .Int8(0);
      if (*rows > kMostCounted)
        rows = std::max(*rows, Spi::Execute(
                                   R"sql(SELECT coalesce(pg_catalog.sum(c.reltuples), 0)::pg_catalog.int8
                                         FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) AS p
                                         JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) p.relid
                                         WHERE p.isleaf)sql",
                                   {SqlParam::OidOf(relation)})[0]
                                   .Int8(0));
    }
  }
  if (!rows) PG_RETURN_NULL();
  return Int64GetDatum(*rows);
}
