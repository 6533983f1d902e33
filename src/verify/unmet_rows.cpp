#include "verify/unmet_rows.h"

#include "ledger/ledger_segments.h"
#include "ledger/packed_ledger.h"
#include "mapping/expiry_columns.h"
#include "mapping/mapping_query.h"
#include "mapping/mapping_settings.h"
#include "pg/arguments.h"
#include "pg/each_row.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "pg/user_sql.h"

namespace prm {

using pg::QuoteIdentifier;
using pg::Spi;

namespace {

constexpr char kMetName[] = "redis_met";
constexpr char kSuspectName[] = "redis_suspect";
constexpr char kUnmetName[] = "redis_unmet";
constexpr size_t kRowsAtOnce = 20000;

TupleDesc HashDesc() {
  return pg::Call([] {
    TupleDesc desc = CreateTemplateTupleDesc(1);
    TupleDescInitEntry(desc, 1, "redis_hash", BYTEAOID, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
}

TupleDesc UnmetDesc() {
  return pg::Call([] {
    TupleDesc desc = CreateTemplateTupleDesc(3);
    TupleDescInitEntry(desc, 1, "redis_hash", BYTEAOID, -1, 0);
    TupleDescInitEntry(desc, 2, "row_key", TEXTOID, -1, 0);
    TupleDescInitEntry(desc, 3, "redis_version", BYTEAOID, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
}

void Fill(const Mapping &mapping, const VerificationRecord &record, bool suspects, TupleDesc desc,
          pg::Tuplestore &rows) {
  record.VisitMet(mapping.id, suspects, [&](const PackedItem &item) {
    Datum value = pg::ByteaDatum(Pack({item}, Packing::kHashes));
    bool null = false;
    rows.Put(desc, &value, &null);
    pfree(DatumGetPointer(value));
  });
}

// The condition under which a row without a key is as it should be.
std::string IsSettled(const Mapping &mapping, const MappingQuery &query, const Target &target) {
  std::string condition = "false";
  for (const std::string &column : ExpiryColumns(query.facts()))
    if (target.Find(column)->type == TIMESTAMPTZOID)
      condition += " OR target." + QuoteIdentifier(column) +
                   " OPERATOR(pg_catalog.<=) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) '1 "
                   "s'::pg_catalog.interval)";
  if (mapping.on_delete == "delete") return condition;
  std::string stored, marked;
  for (const pg::SetItem &item : pg::ParseSetList(mapping.on_delete, "on_delete", "")) {
    const TargetColumn *column = target.Find(item.column);
    if (column == nullptr) continue;
    const char *type = pg::Call([&] {
      return const_cast<const char *>(
          format_type_extended(column->type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
    });
    stored += (stored.empty() ? "target." : ", target.") + QuoteIdentifier(item.column);
    marked += (marked.empty() ? "CAST((" : ", CAST((") + item.expression + ") AS " + type + ")";
  }
  return condition + " OR ROW(" + stored + ")::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(" + marked +
         ")::pg_catalog.record";
}

// The hash of a row, which stays when it is written again, and of this version of it. Rows of other servers
// and of views have no version that could be told.
std::string VersionExpression(const Target &target) {
  std::string const hash = RowHashExpression(target, "target");
  if (target.kind != TargetKind::kLocal) return hash;
  return hash.substr(0, hash.size() - 1) +
         ", target.tableoid, target.ctid::pg_catalog.text, target.xmin::pg_catalog.text)";
}

PackedItem ItemOf(Datum hash) {
  std::vector<PackedItem> items;
  UnpackOrThrow(pg::DatumBytes(hash), Packing::kHashes, items);
  return items.at(0);
}

// The rows among `unmet` that the full ledger knows.
void LookUpInLedger(const Mapping &mapping, TupleDesc desc, pg::Tuplestore &unmet, pg::Tuplestore &own) {
  pg::NamedRows named(kUnmetName, desc, unmet.get(), static_cast<double>(unmet.size()));
  pg::KeptStatement look_up(
      R"sql(SELECT u.redis_hash, u.row_key, u.redis_version
            FROM redis_unmet AS u
            WHERE EXISTS (SELECT FROM redis_migrate.ledger AS l
                          WHERE l.mapping_id = $1 AND l.row_key = u.row_key))sql");
  pg::AsExtensionOwner as_owner;
  look_up.ExecuteInto(own, {pg::SqlParam::Int8(mapping.id)});
}

// Looks rows up in a packed ledger in the same way. `unmet` is in the order of hashes, so that each segment
// is read once or twice.
void LookUpInPackedLedger(const Mapping &mapping, TupleDesc desc, pg::Tuplestore &unmet,
                          pg::Tuplestore &own) {
  PackedLedger const ledger(mapping.id, 0);
  std::vector<PackedItem> items;
  pg::Tuplestore rows;  // of the items
  auto look_up = [&] {
    int64 bytes = 0;
    std::vector<PackedItem> const known = ledger.FindOwn(items, &bytes);
    size_t next = 0;
    pg::ForEachRow(desc, rows, [&](TupleTableSlot *slot) {
      if (std::binary_search(known.begin(), known.end(), items[next++])) own.Put(slot);
    });
    items.clear();
    rows.Clear();
  };
  pg::ForEachRow(desc, unmet, [&](TupleTableSlot *slot) {
    items.push_back(ItemOf(slot->tts_values[0]));
    rows.Put(slot);
    if (items.size() == kRowsAtOnce) look_up();
  });
  if (!items.empty()) look_up();
}

}  // namespace

std::string WhyUnmetAreUnknown(const Mapping &mapping) {
  if (mapping.on_delete == "keep") return "its on_delete is 'keep'";
  if (mapping.ledger == "none" && !mapping.exclusive) return "nothing tells which rows are its own";
  return "";
}

int64 VisitUnmetRows(const Mapping &mapping, const VerificationRecord &record, bool only_suspects,
                     const std::function<void(const UnmetRow &)> &visit) {
  pg::Context context("redis_migrate unmet rows");
  pg::SwitchContext in_context(context.get());
  MappingSettings settings(mapping);
  settings.Set("enable_nestloop", "off");  // everything is read once
  CanonicalText canonical;
  Target const target = LoadTarget(mapping);
  BatchShape const shape(ParsePattern(mapping.pattern), ExpandFromName(mapping.expand));
  MappingQuery const query(mapping, shape, target);
  TupleDesc const hash_desc = HashDesc(), desc = UnmetDesc();
  pg::Tuplestore met, suspects, unmet, own;
  Fill(mapping, record, false, hash_desc, met);
  if (only_suspects) Fill(mapping, record, true, hash_desc, suspects);
  bool const is_packed = mapping.ledger == "packed" && !mapping.exclusive;
  {
    pg::NamedRows named_met(kMetName, hash_desc, met.get(), static_cast<double>(met.size()));
    pg::NamedRows named_suspects(kSuspectName, hash_desc, suspects.get(),
                                 static_cast<double>(suspects.size()));
    pg::KeptStatement find(
        "SELECT stored.redis_hash, stored.row_key, stored.redis_version FROM (SELECT " +
        RowHashExpression(target, "target") + " AS redis_hash, " +
        Ledger(mapping, target).RowKeyExpression("target") + " AS row_key, " + VersionExpression(target) +
        " AS redis_version FROM " + target.name + " AS target WHERE (" + IsSettled(mapping, query, target) +
        ") IS NOT TRUE) AS stored WHERE NOT EXISTS (SELECT FROM redis_met AS met WHERE met.redis_hash "
        "OPERATOR(pg_catalog.=) stored.redis_hash)" +
        (only_suspects ? " AND EXISTS (SELECT FROM redis_suspect AS suspect WHERE suspect.redis_hash "
                         "OPERATOR(pg_catalog.=) stored.redis_version)"
                       : "") +
        (is_packed ? " ORDER BY stored.redis_hash" : ""));
    find.ExecuteInto(unmet);
  }
  pg::SnapshotScope held;
  pg::Tuplestore *rows = &unmet;
  if (mapping.ledger == "full") {
    LookUpInLedger(mapping, desc, unmet, own);
    rows = &own;
  } else if (is_packed) {
    LookUpInPackedLedger(mapping, desc, unmet, own);
    rows = &own;
  }
  pg::ForEachRow(desc, *rows, [&](TupleTableSlot *slot) {
    visit({ItemOf(slot->tts_values[2]), pg::DatumBytes(slot->tts_values[1])});
  });
  return rows->size();
}

}  // namespace prm
