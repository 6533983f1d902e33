#include "ledger/inserted_rows.h"

#include "ledger/packed_column.h"
#include "pg/identity.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// Undoing a list costs a scan of the target.
constexpr int64 kRowsOfList = 1'000'000;

// A list of the mapping that is not sorted yet.
struct Source {
  int64 owner;
  int64 id;
  int64 columns;
  PackedColumn rows;
};

constexpr char kOfLedger[] =
    "FROM redis_migrate.ledger_batch WHERE mapping_id = $1 AND run_id = $2 AND NOT in_journal AND "
    "octet_length(inserted) > 0";
constexpr char kNoted[] =
    "FROM redis_migrate.journal_insert WHERE mapping_id = $1 AND run_id = $2 AND NOT sorted AND target = $3 "
    "AND key_columns = $4";

}  // namespace

// Returns the number of the list; 0: it would be empty.
int64 InsertedRows::Save(int64 columns, bool sorted, std::vector<PackedItem> rows) const {
  if (rows.empty()) return 0;
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(INSERT INTO redis_migrate.journal_insert
              (run_id, mapping_id, target, key_columns, sorted, format, columns, inserted)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            RETURNING insert_id)sql",
             {SqlParam::Int8(run_id_), SqlParam::Int8(mapping_.id), SqlParam::Text(mapping_.target),
              SqlParam::TextArray(mapping_.key_columns), SqlParam::Bool(sorted),
              SqlParam::Int4(kPackedFormat), SqlParam::Int8(columns),
              SqlParam::Bytea(Pack(std::move(rows), Packing::kEntries))})[0]
      .Int8(0);
}

void InsertedRows::Note(int64 columns, std::vector<PackedItem> rows) const {
  Save(columns, false, std::move(rows));
}

bool InsertedRows::IsSorted() const {
  pg::AsExtensionOwner as_owner;
  return !Spi::ExecuteKept(
              std::string("SELECT EXISTS (SELECT ") + kOfLedger + ") OR EXISTS (SELECT " + kNoted + ")",
              {SqlParam::Int8(mapping_.id), SqlParam::Int8(run_id_), SqlParam::Text(mapping_.target),
               SqlParam::TextArray(mapping_.key_columns)})[0]
              .Bool(0);
}

int64 InsertedRows::Count() const {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             std::string("SELECT ((SELECT coalesce(sum(octet_length(inserted)), 0) ") + kOfLedger +
                 ") + (SELECT coalesce(sum(octet_length(inserted)), 0) FROM "
                 "redis_migrate.journal_insert WHERE mapping_id = $1 AND run_id = $2))::bigint / 24",
             {SqlParam::Int8(mapping_.id), SqlParam::Int8(run_id_)})[0]
      .Int8(0);
}

int64 InsertedRows::Sort(int64 columns) const {
  pg::SnapshotScope snapshot;  // lists are fetched from TOAST
  pg::AsExtensionOwner as_owner;
  std::vector<Source> sources;
  int64 size = 0;
  auto add = [&](const pg::Rows &rows, bool of_ledger) {
    for (uint64 i = 0; i < rows.size(); ++i) {
      RequirePackedFormat(rows[i].Int4(3));
      size_t const items = ItemsOf(rows[i], 2, Packing::kEntries);
      size += static_cast<int64>(items);
      sources.push_back({of_ledger ? mapping_.id : run_id_,
                         rows[i].Int8(0),
                         rows[i].Int8(1),
                         {Packing::kEntries,
                          of_ledger ? R"sql(SELECT substr(inserted, $3, $4)
                              FROM redis_migrate.ledger_batch
                              WHERE mapping_id = $1 AND batch_id = $2)sql"
                                    : R"sql(SELECT substr(inserted, $3, $4)
                              FROM redis_migrate.journal_insert
                              WHERE run_id = $1 AND insert_id = $2)sql",
                          items}});
    }
  };
  // A run that has got another ledger meanwhile begins anew, so the order of the two does not matter.
  add(Spi::ExecuteKept(std::string("SELECT batch_id, columns, octet_length(inserted), format ") + kOfLedger +
                           " ORDER BY batch_id",
                       {SqlParam::Int8(mapping_.id), SqlParam::Int8(run_id_)}),
      true);
  std::vector<int64> noted;
  {
    pg::Rows const rows =
        Spi::ExecuteKept(std::string("SELECT insert_id, columns, octet_length(inserted), format ") + kNoted +
                             " ORDER BY insert_id",
                         {SqlParam::Int8(mapping_.id), SqlParam::Int8(run_id_),
                          SqlParam::Text(mapping_.target), SqlParam::TextArray(mapping_.key_columns)});
    add(rows, false);
    for (uint64 i = 0; i < rows.size(); ++i) noted.push_back(rows[i].Int8(0));
  }
  auto const ranges = static_cast<uint64_t>(size / kRowsOfList) + 1;
  int64 kept = 0;
  for (uint64_t i = 0; i < ranges; ++i) {
    pg::Context context("redis_migrate undo");
    pg::SwitchContext in_context(context.get());
    HashRange const range = HashRange::Share(i, ranges);
    std::vector<PackedItem> items;
    for (Source &source : sources)
      source.rows.Read(source.owner, source.id, range, ranges, [&](PackedItem item) {
        if (source.columns != columns) item.image = 0;
        items.push_back(item);
      });
    // The last of several with one hash is the one that Pack keeps.
    std::stable_sort(items.begin(), items.end());
    for (size_t k = 0; k < items.size(); ++k)
      kept += k + 1 == items.size() || !(items[k].hash == items[k + 1].hash) ? 1 : 0;
    Save(columns, true, std::move(items));
  }
  Spi::ExecuteKept("DELETE FROM redis_migrate.journal_insert WHERE run_id = $1 AND insert_id = ANY ($2)",
                   {SqlParam::Int8(run_id_), SqlParam::Int8Array(noted)});
  Spi::ExecuteKept(
      "UPDATE redis_migrate.ledger_batch SET run_id = NULL WHERE mapping_id = $1 AND run_id = $2",
      {SqlParam::Int8(mapping_.id), SqlParam::Int8(run_id_)});
  return size - kept;
}

std::vector<int64> InsertedRows::Lists() const {
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::ExecuteKept(
      R"sql(SELECT insert_id
            FROM redis_migrate.journal_insert
            WHERE run_id = $2 AND mapping_id = $1 AND sorted AND target = $3 AND key_columns = $4
            ORDER BY insert_id)sql",
      {SqlParam::Int8(mapping_.id), SqlParam::Int8(run_id_), SqlParam::Text(mapping_.target),
       SqlParam::TextArray(mapping_.key_columns)});
  std::vector<int64> lists;
  for (uint64 i = 0; i < rows.size(); ++i) lists.push_back(rows[i].Int8(0));
  return lists;
}

std::vector<PackedItem> InsertedRows::Read(int64 list, int64 columns) const {
  pg::SnapshotScope snapshot;
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::ExecuteKept(
      R"sql(SELECT inserted, columns, format
            FROM redis_migrate.journal_insert
            WHERE run_id = $1 AND insert_id = $2)sql",
      {SqlParam::Int8(run_id_), SqlParam::Int8(list)});
  std::vector<PackedItem> items;
  if (rows.size() == 0) return items;
  RequirePackedFormat(rows[0].Int4(2));
  UnpackOrThrow(pg::DatumBytes(rows[0].Value(0)), Packing::kEntries, items);
  if (rows[0].Int8(1) != columns)
    for (PackedItem &item : items) item.image = 0;
  return items;
}

int64 InsertedRows::Replace(int64 list, int64 columns, std::vector<PackedItem> left) const {
  {
    pg::AsExtensionOwner as_owner;
    Spi::ExecuteKept("DELETE FROM redis_migrate.journal_insert WHERE run_id = $1 AND insert_id = $2",
                     {SqlParam::Int8(run_id_), SqlParam::Int8(list)});
  }
  return Save(columns, true, std::move(left));
}

std::vector<StrandedRows> FindStrandedRows(const std::string &migration, int64 run_id) {
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::Execute(
      R"sql(SELECT coalesce(m.mapping, '(' || i.target || ')'),
                CASE WHEN m.mapping IS NULL THEN 'the mapping is gone'
                    WHEN m.target <> i.target THEN 'the mapping has another target now'
                    ELSE 'the mapping has other key columns now' END,
                sum(octet_length(i.inserted) / 24)::bigint
            FROM redis_migrate.journal_insert AS i
                LEFT JOIN redis_migrate.mapping AS m ON m.mapping_id = i.mapping_id AND m.migration = $1
            WHERE i.run_id = $2
                AND (m.mapping IS NULL OR m.target <> i.target OR m.key_columns <> i.key_columns)
            GROUP BY 1, 2)sql",
      {SqlParam::Text(migration), SqlParam::Int8(run_id)});
  std::vector<StrandedRows> stranded;
  for (uint64 i = 0; i < rows.size(); ++i)
    stranded.push_back({rows[i].Text(0), rows[i].Text(1), rows[i].Int8(2)});
  return stranded;
}

}  // namespace prm
