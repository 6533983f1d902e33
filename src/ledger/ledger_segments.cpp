#include "ledger/ledger_segments.h"

#include "pg/memory.h"
#include "pg/spi.h"
#include "pg/wait.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr size_t kSegmentEntries = 2000;

SqlParam HashParam(const Hash128 &hash) { return SqlParam::Bytea(Pack({{hash}}, Packing::kHashes)); }

}  // namespace

void UnpackOrThrow(Bytes packed, Packing packing, std::vector<PackedItem> &items) {
  if (Unpack(packed, packing, items)) return;
  throw pg::Failure(ERRCODE_DATA_CORRUPTED, "a packed ledger is damaged",
                    "Its hashes are not whole, or not in order.",
                    "Drop the mapping and add it again: the rows stay, and its ledger begins anew.");
}

void RequirePackedFormat(int format) {
  if (format != kPackedFormat)
    throw pg::Failure(ERRCODE_FEATURE_NOT_SUPPORTED, "a packed ledger has format " + std::to_string(format),
                      "This version of pg_redis_migrate reads format " + std::to_string(kPackedFormat) + ".");
}

LedgerSegments::LedgerSegments(int64 mapping_id, Reads reads) : mapping_id_(mapping_id), reads_(reads) {
  pg::Context context("redis_migrate ledger");
  pg::SwitchContext in_context(context.get());
  pg::Rows const rows = Spi::ExecuteKept(
      "SELECT first_hash FROM redis_migrate.ledger_segment WHERE mapping_id = $1 ORDER BY first_hash",
      {SqlParam::Int8(mapping_id)}, reads_ == kActiveSnapshot);
  std::vector<PackedItem> item;
  for (uint64 i = 0; i < rows.size(); ++i) {
    item.clear();
    UnpackOrThrow(pg::DatumBytes(rows[i].Value(0)), Packing::kHashes, item);
    first_.push_back(item.at(0).hash);
  }
}

size_t LedgerSegments::Find(const Hash128 &hash) const {
  auto after = std::upper_bound(first_.begin(), first_.end(), hash);
  return after == first_.begin() ? 0 : static_cast<size_t>(after - first_.begin()) - 1;
}

bool LedgerSegments::Overlaps(size_t segment, const HashRange &range) const {
  return (segment == 0 || first_[segment].high <= range.last) &&
         (segment + 1 == first_.size() || first_[segment + 1].high >= range.first);
}

std::vector<PackedItem> LedgerSegments::Read(size_t segment, int64 columns) const {
  pg::CheckInterrupts();
  pg::Context context("redis_migrate ledger");
  pg::SwitchContext in_context(context.get());
  pg::Rows const rows = Spi::ExecuteKept(
      R"sql(SELECT entries, columns, format
            FROM redis_migrate.ledger_segment
            WHERE mapping_id = $1 AND first_hash = $2)sql",
      {SqlParam::Int8(mapping_id_), HashParam(first_[segment])}, reads_ == kActiveSnapshot);
  std::vector<PackedItem> entries;
  if (rows.size() == 0) return entries;
  RequirePackedFormat(rows[0].Int4(2));
  UnpackOrThrow(pg::DatumBytes(rows[0].Value(0)), Packing::kEntries, entries);
  if (rows[0].Int8(1) != columns)
    for (PackedItem &entry : entries) entry.image = 0;
  return entries;
}

void LedgerSegments::Apply(const std::vector<LedgerEvent> &events, int64 columns,
                           const std::function<void(const LedgerEvent &, LedgerFinding)> &found) const {
  const LedgerEvent *event = events.data();
  const LedgerEvent *const end = event + events.size();
  while (event != end) {
    std::vector<PackedItem> old;
    const LedgerEvent *last = end;
    if (!first_.empty()) {
      size_t const segment = Find(event->item.hash);
      if (segment + 1 < first_.size())
        last = std::lower_bound(event, end, first_[segment + 1],
                                [](const LedgerEvent &a, const Hash128 &hash) { return a.item.hash < hash; });
      old = Read(segment, columns);
      std::vector<PackedItem> const entries = ApplyEvents(old, event, last, found);
      if (entries != old) {
        Delete(segment);
        Insert(entries, columns);
      }
    } else {
      Insert(ApplyEvents(old, event, last, found), columns);
    }
    event = last;
  }
}

void LedgerSegments::Delete(size_t segment) const {
  pg::Context context("redis_migrate ledger");
  pg::SwitchContext in_context(context.get());
  Spi::ExecuteKept("DELETE FROM redis_migrate.ledger_segment WHERE mapping_id = $1 AND first_hash = $2",
                   {SqlParam::Int8(mapping_id_), HashParam(first_[segment])});
}

// Divides the entries into parts of about the same size.
void LedgerSegments::Insert(const std::vector<PackedItem> &entries, int64 columns) const {
  size_t const parts = (entries.size() + kSegmentEntries - 1) / kSegmentEntries;
  for (size_t part = 0; part < parts; ++part) {
    pg::Context context("redis_migrate ledger");
    pg::SwitchContext in_context(context.get());
    auto const begin = entries.begin() + static_cast<long>(entries.size() * part / parts);
    auto const end = entries.begin() + static_cast<long>(entries.size() * (part + 1) / parts);
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.ledger_segment (mapping_id, first_hash, format, columns, entries)
              VALUES ($1, $2, $3, $4, $5))sql",
        {SqlParam::Int8(mapping_id_), HashParam(begin->hash), SqlParam::Int4(kPackedFormat),
         SqlParam::Int8(columns),
         SqlParam::Bytea(Pack(std::vector<PackedItem>(begin, end), Packing::kEntries))});
  }
}

}  // namespace prm
