#include "run/prune.h"

#include "mapping/mapping_settings.h"
#include "pg/arguments.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "store/ledger.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr char kSeenName[] = "redis_seen";

// Strikes off the rows whose owners are gone and returns those that nobody yields any more. A row that only
// another key yields stays: the next run makes it that key's.
std::vector<std::string> TakeGoneFromLedger(const Mapping &mapping, int64 run_id, int64 *left_to_others) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      "DELETE FROM redis_migrate.ledger AS l WHERE l.mapping_id = $1 "
      "AND NOT EXISTS (SELECT FROM redis_migrate.seen_row AS s WHERE s.run_id = $2 AND s.mapping_id = $1 AND "
      "s.row_key = l.row_key AND NOT s.lost) "
      "AND NOT EXISTS (SELECT FROM redis_migrate.reject AS r WHERE r.run_id = $2 AND r.db = l.db AND "
      "r.key_bytes = l.key_bytes) "
      "RETURNING l.row_key, EXISTS (SELECT FROM redis_migrate.seen_row AS s WHERE s.run_id = $2 AND "
      "s.mapping_id = $1 AND s.row_key = l.row_key)",
      {SqlParam::Int8(mapping.id), SqlParam::Int8(run_id)});
  std::vector<std::string> gone;
  for (uint64 i = 0; i < rows.size(); ++i) {
    if (rows[i].Bool(1))
      ++*left_to_others;
    else
      gone.push_back(rows[i].Text(0));
  }
  return gone;
}

int64 RejectsOfPattern(const Mapping &mapping, int64 run_id) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute("SELECT count(*) FROM redis_migrate.reject WHERE run_id = $1 AND pattern = $2",
                      {SqlParam::Int8(run_id), SqlParam::Text(mapping.pattern)})[0]
      .Int8(0);
}

// How many rows of the mapping there are, if the run met none of them, nor a key that it rejected.
int64 RowsIfNoneMet(const Mapping &mapping, const Target &target, int64 run_id) {
  if (RejectsOfPattern(mapping, run_id) > 0) return 0;
  {
    pg::AsExtensionOwner as_owner;
    if (Spi::Execute(
            "SELECT EXISTS (SELECT FROM redis_migrate.seen_row WHERE run_id = $1 AND mapping_id = $2)",
            {SqlParam::Int8(run_id), SqlParam::Int8(mapping.id)})[0]
            .Bool(0))
      return 0;
    if (mapping.ledger)
      return Spi::Execute("SELECT count(*) FROM redis_migrate.ledger WHERE mapping_id = $1",
                          {SqlParam::Int8(mapping.id)})[0]
          .Int8(0);
  }
  return Spi::Execute("SELECT pg_catalog.count(*) FROM " + target.name)[0].Int8(0);
}

// The identities that the run met, as a relation that the owner of the migration can read.
void FillSeen(const Mapping &mapping, int64 run_id, TupleDesc desc, pg::Tuplestore &seen) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      "SELECT DISTINCT row_key FROM redis_migrate.seen_row WHERE run_id = $1 AND mapping_id = $2",
      {SqlParam::Int8(run_id), SqlParam::Int8(mapping.id)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    Datum value = rows[i].Value(0);
    bool null = false;
    seen.Put(desc, &value, &null);
  }
}

}  // namespace

PruneResult Prune(const Mapping &mapping, int64 run_id, bool force) {
  PruneResult result;
  if (mapping.on_delete == "keep") {
    result.outcome = "kept";
    result.why = "its on_delete is 'keep'";
    return result;
  }
  pg::Context context("redis_migrate prune");
  pg::SwitchContext in_context(context.get());
  MappingSettings settings(mapping);
  // Everything is read once, and the statistics of what the run has filled are old.
  settings.Set("enable_nestloop", "off");
  Target target = LoadTarget(mapping);
  Ledger ledger(mapping, target);
  if (int64 const rows = force ? 0 : RowsIfNoneMet(mapping, target, run_id); rows > 0) {
    result.outcome = "refused";
    result.why = "the run met none of its keys, and would have deleted all " + std::to_string(rows);
    return result;
  }
  if (mapping.ledger) {
    int64 left_to_others = 0;
    result.deleted = ledger.DeleteRows(TakeGoneFromLedger(mapping, run_id, &left_to_others));
    if (left_to_others > 0)
      pg::Report(NOTICE,
                 std::to_string(left_to_others) + " rows of mapping \"" + mapping.name + "\" lost their keys",
                 "Other keys yield the same rows. They take them at the next run.");
    return result;
  }
  if (int64 rejects = RejectsOfPattern(mapping, run_id); rejects > 0) {
    result.outcome = "kept";
    result.why = std::to_string(rejects) +
                 " keys of its pattern were rejected, and without a ledger nothing tells their rows from "
                 "those of deleted keys";
    return result;
  }
  TupleDesc desc = pg::Call([] {
    TupleDesc columns = CreateTemplateTupleDesc(1);
    TupleDescInitEntry(columns, 1, "row_key", TEXTOID, -1, 0);
    TupleDescFinalize(columns);
    return columns;
  });
  pg::Tuplestore seen;
  FillSeen(mapping, run_id, desc, seen);
  pg::NamedRows named(kSeenName, desc, seen.get());
  result.deleted = static_cast<int64>(
      Spi::Execute(ledger.DeleteStatement() +
                   " WHERE NOT EXISTS (SELECT FROM (SELECT row_key::pg_catalog.text[] AS row_key FROM "
                   "redis_seen) AS seen WHERE " +
                   ledger.HasIdentity("target", "seen.row_key") + ")")
          .processed());
  return result;
}

}  // namespace prm
