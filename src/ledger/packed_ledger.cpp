#include "ledger/packed_ledger.h"

#include "core/sort_by_hash.h"
#include "ledger/ledger_segments.h"
#include "ledger/packed_column.h"
#include "mapping/migration_lock.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// A row that a batch has appended.
struct Appended {
  int64 id;
  std::optional<int64> run_id;
  int64 columns;
  bool takes_changed;
  PackedColumn inserted, changed, removed;
  int64 bytes() const {
    return static_cast<int64>(inserted.items * static_cast<size_t>(inserted.packing) +
                              changed.items * static_cast<size_t>(changed.packing) +
                              removed.items * static_cast<size_t>(removed.packing));
  }
};

// A batch that is divided, since some of its rows are refused, appends many rows of few entries.
// Each merge of some of them may write all segments anew.
constexpr int64 kMergedAtOnce = 32 * 1024;

constexpr int64 kMostUnmerged = 4096;  // of batches: a look-up reads them all
// Appended batches are worth a merge if they are this part of the segments.
constexpr int64 kWorthOfSegments = 4;

// The first that are not merged yet, in the order in which they were appended.
std::vector<Appended> ListAppended(int64 mapping_id) {
  pg::Rows const rows = Spi::ExecuteKept(
      R"sql(SELECT batch_id, run_id, columns, takes_changed, octet_length(inserted), octet_length(changed),
                octet_length(removed), format
            FROM redis_migrate.ledger_batch
            WHERE mapping_id = $1 AND NOT merged
            ORDER BY batch_id
            LIMIT $2)sql",
      {SqlParam::Int8(mapping_id), SqlParam::Int8(kMergedAtOnce)}, true);
  std::vector<Appended> appended;
  for (uint64 i = 0; i < rows.size(); ++i) {
    pg::Row const row = rows[i];
    RequirePackedFormat(row.Int4(7));
    Appended batch = {row.Int8(0),
                      std::nullopt,
                      row.Int8(2),
                      row.Bool(3),
                      {Packing::kEntries,
                       R"sql(SELECT substr(inserted, $3, $4)
                             FROM redis_migrate.ledger_batch
                             WHERE mapping_id = $1 AND batch_id = $2)sql",
                       ItemsOf(row, 4, Packing::kEntries)},
                      {Packing::kChanges,
                       R"sql(SELECT substr(changed, $3, $4)
                             FROM redis_migrate.ledger_batch
                             WHERE mapping_id = $1 AND batch_id = $2)sql",
                       ItemsOf(row, 5, Packing::kChanges)},
                      {Packing::kHashes,
                       R"sql(SELECT substr(removed, $3, $4)
                             FROM redis_migrate.ledger_batch
                             WHERE mapping_id = $1 AND batch_id = $2)sql",
                       ItemsOf(row, 6, Packing::kHashes)}};
    if (!row.IsNull(1)) batch.run_id = row.Int8(1);
    appended.push_back(batch);
  }
  return appended;
}

int64 BytesOf(const std::vector<Appended> &appended) {
  int64 bytes = 0;
  for (const Appended &batch : appended) bytes += batch.bytes();
  return bytes;
}

// The changes by others that a merge finds for a run.
struct Found {
  int64 changed_here = 0;
  int64 deleted_here = 0;
};

struct Unmerged {
  int64 batches;
  int64 bytes;
};

Unmerged CountUnmerged(int64 mapping_id) {
  pg::Rows const rows = Spi::ExecuteKept(
      R"sql(SELECT count(*), coalesce(sum(octet_length(inserted) + octet_length(changed) + octet_length(removed)), 0)::bigint
            FROM redis_migrate.ledger_batch
            WHERE mapping_id = $1 AND NOT merged)sql",
      {SqlParam::Int8(mapping_id)});
  return {rows[0].Int8(0), rows[0].Int8(1)};
}

void SaveFound(int64 mapping_id, const std::map<int64, Found> &found) {
  for (const auto &[run_id, counts] : found)
    Spi::ExecuteKept(
        R"sql(UPDATE redis_migrate.mapping_count AS c
              SET changed_here = c.changed_here + $3, deleted_here = c.deleted_here + $4
              FROM redis_migrate.mapping AS m
              WHERE m.mapping_id = $1 AND c.run_id = $2 AND c.part = 0 AND c.mapping = m.mapping)sql",
        {SqlParam::Int8(mapping_id), SqlParam::Int8(run_id), SqlParam::Int8(counts.changed_here),
         SqlParam::Int8(counts.deleted_here)});
}

// Returns whether there may be more. In the extension owner's name.
bool MergeSome(int64 mapping_id) {
  pg::SnapshotScope snapshot;
  std::vector<Appended> appended = ListAppended(mapping_id);
  if (appended.empty()) return false;
  int64 const columns = appended.back().columns;
  std::map<int64, Found> found;
  uint64_t const ranges = RangesFor(BytesOf(appended));
  std::vector<LedgerEvent> events;
  for (uint64_t i = 0; i < ranges; ++i) {
    HashRange const range = HashRange::Share(i, ranges);
    events.clear();
    for (uint32_t batch = 0; batch < appended.size(); ++batch) {
      auto read = [&](PackedColumn &column, LedgerEvent::Kind kind) {
        column.Read(mapping_id, appended[batch].id, range, ranges, [&](PackedItem item) {
          if (appended[batch].columns != columns) item.image = item.prior = 0;
          events.push_back({item, batch, kind});
        });
      };
      read(appended[batch].inserted, LedgerEvent::kInserted);
      read(appended[batch].changed,
           appended[batch].takes_changed ? LedgerEvent::kTaken : LedgerEvent::kRefreshed);
      read(appended[batch].removed, LedgerEvent::kRemoved);
    }
    // They are in the order of time.
    SortByHash(events, [](const LedgerEvent &event) { return event.item.hash; });
    LedgerSegments(mapping_id).Apply(events, columns, [&](const LedgerEvent &event, LedgerFinding finding) {
      if (!appended[event.batch].run_id) return;
      Found &counts = found[*appended[event.batch].run_id];
      ++(finding == LedgerFinding::kChangedHere ? counts.changed_here : counts.deleted_here);
    });
  }
  std::vector<int64> ids;
  for (const Appended &batch : appended) ids.push_back(batch.id);
  Spi::ExecuteKept(
      "UPDATE redis_migrate.ledger_batch SET merged = true WHERE mapping_id = $1 AND batch_id = ANY ($2)",
      {SqlParam::Int8(mapping_id), SqlParam::Int8Array(ids)});
  SaveFound(mapping_id, found);
  return static_cast<int64>(appended.size()) == kMergedAtOnce;
}

}  // namespace

void PackedLedger::Append(std::optional<int64> run_id, News news) const {
  if (news.inserted.empty() && news.changed.empty() && news.removed.empty()) return;
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.ledger_batch (mapping_id, run_id, format, columns, takes_changed,
                in_journal, inserted, changed, removed)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9))sql",
      {SqlParam::Int8(mapping_id_), run_id ? SqlParam::Int8(*run_id) : SqlParam{INT8OID, 0, true},
       SqlParam::Int4(kPackedFormat), SqlParam::Int8(columns_), SqlParam::Bool(news.takes_changed),
       SqlParam::Bool(news.in_journal), SqlParam::Bytea(Pack(std::move(news.inserted), Packing::kEntries)),
       SqlParam::Bytea(Pack(std::move(news.changed), Packing::kChanges)),
       SqlParam::Bytea(Pack(std::move(news.removed), Packing::kHashes))});
}

std::vector<PackedItem> PackedLedger::FindOwn(std::vector<PackedItem> rows, int64 *bytes_read) const {
  std::sort(rows.begin(), rows.end());
  for (PackedItem &row : rows) row.image = row.prior = 0;
  std::vector<PackedItem> own;
  // One snapshot for all that is read: others may merge meanwhile.
  pg::SnapshotScope snapshot;
  pg::AsExtensionOwner as_owner;
  pg::Rows const appended = Spi::ExecuteKept(
      R"sql(SELECT format, columns, takes_changed, inserted, changed, removed
            FROM redis_migrate.ledger_batch
            WHERE mapping_id = $1 AND NOT merged
            ORDER BY batch_id DESC)sql",
      {SqlParam::Int8(mapping_id_)}, true);
  // From the newest to the oldest: the first batch that names a row decides, except for the image of a row
  // that was refreshed.
  std::vector<PackedItem> items;
  for (uint64 batch = 0; batch < appended.size() && !rows.empty(); ++batch) {
    pg::CheckInterrupts();
    pg::Context context("redis_migrate ledger");
    pg::SwitchContext in_context(context.get());
    RequirePackedFormat(appended[batch].Int4(0));
    bool const is_of_columns = appended[batch].Int8(1) == columns_;
    std::vector<bool> decided(rows.size(), false);
    auto look = [&](int column, Packing packing, bool decides, bool owns) {
      Bytes const packed = pg::DatumBytes(appended[batch].Value(column));
      *bytes_read += static_cast<int64>(packed.size());
      items.clear();
      UnpackOrThrow(packed, packing, items);
      size_t at = 0;
      for (const PackedItem &item : items) {
        while (at < rows.size() && rows[at] < item) ++at;
        if (at == rows.size()) return;
        if (!(rows[at].hash == item.hash) || decided[at]) continue;
        // prior: the image that a newer batch has given it.
        if (is_of_columns && packing != Packing::kHashes && rows[at].prior == 0) rows[at].prior = item.image;
        if (!decides) continue;
        decided[at] = true;
        if (owns) own.push_back({item.hash, rows[at].prior});
      }
    };
    look(3, Packing::kEntries, true, true);
    look(4, Packing::kChanges, appended[batch].Bool(2), true);
    look(5, Packing::kHashes, true, false);
    std::vector<PackedItem> rest;
    for (size_t i = 0; i < rows.size(); ++i)
      if (!decided[i]) rest.push_back(rows[i]);
    rows = std::move(rest);
  }
  LedgerSegments const segments(mapping_id_, LedgerSegments::kActiveSnapshot);
  std::vector<PackedItem> held;
  std::optional<size_t> read;
  for (const PackedItem &row : rows) {
    if (segments.size() == 0) break;
    size_t const segment = segments.Find(row.hash);
    if (segment != read) {
      held = segments.Read(segment, columns_);
      read = segment;
    }
    auto const entry = std::lower_bound(held.begin(), held.end(), row);
    if (entry != held.end() && entry->hash == row.hash)
      own.push_back({row.hash, row.prior != 0 ? row.prior : entry->image});
  }
  std::sort(own.begin(), own.end());
  return own;
}

void PackedLedger::Merge(int64 mapping_id) {
  LockMapping(mapping_id);
  pg::AsExtensionOwner as_owner;
  while (MergeSome(mapping_id)) continue;
}

int64 PackedLedger::MergeCost(int64 mapping_id) {
  pg::AsExtensionOwner as_owner;
  return Count(mapping_id) * static_cast<int64>(Packing::kEntries) + CountUnmerged(mapping_id).bytes;
}

bool PackedLedger::MergePays(int64 mapping_id) {
  pg::AsExtensionOwner as_owner;
  Unmerged const unmerged = CountUnmerged(mapping_id);
  return unmerged.batches >= kMostUnmerged ||
         unmerged.bytes > Count(mapping_id) * static_cast<int64>(Packing::kEntries) / kWorthOfSegments;
}

void PackedLedger::DeleteExpired(int64 mapping_id) {
  pg::AsExtensionOwner as_owner;
  // An undo that has begun still needs its run's. now() is the same for all rows, so that an index finds
  // those that are old.
  Spi::ExecuteKept(
      R"sql(DELETE FROM redis_migrate.ledger_batch AS b
            WHERE mapping_id = $1 AND merged AND appended_at <= now() - $2 * interval '1 second'
                AND NOT EXISTS (SELECT FROM redis_migrate.undo AS u WHERE u.run_id = b.run_id AND u.state = 'running'))sql",
      {SqlParam::Int8(mapping_id), SqlParam::Int8(pg::settings::journal_retention_s)});
}

int64 PackedLedger::Count(int64 mapping_id) {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT (coalesce(sum(octet_length(entries)), 0) / $2)::bigint
                   FROM redis_migrate.ledger_segment
                   WHERE mapping_id = $1)sql",
             {SqlParam::Int8(mapping_id), SqlParam::Int8(static_cast<int64>(Packing::kEntries))})[0]
      .Int8(0);
}

void PackedLedger::NoteSeen(int64 mapping_id, int64 run_id, std::vector<PackedItem> rows) {
  if (rows.empty()) return;
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      "INSERT INTO redis_migrate.seen_batch (run_id, mapping_id, format, hashes) VALUES ($1, $2, $3, $4)",
      {SqlParam::Int8(run_id), SqlParam::Int8(mapping_id), SqlParam::Int4(kPackedFormat),
       SqlParam::Bytea(Pack(std::move(rows), Packing::kHashes))});
}

void PackedLedger::ForgetSeen(int64 mapping_id, int64 run_id, std::vector<PackedItem> rows) {
  if (rows.empty()) return;
  pg::AsExtensionOwner as_owner;
  Spi::Execute("DELETE FROM redis_migrate.seen_batch WHERE run_id = $1 AND mapping_id = $2 AND hashes = $3",
               {SqlParam::Int8(run_id), SqlParam::Int8(mapping_id),
                SqlParam::Bytea(Pack(std::move(rows), Packing::kHashes))});
}

bool PackedLedger::HasSeen(int64 mapping_id, int64 run_id) {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             "SELECT EXISTS (SELECT FROM redis_migrate.seen_batch WHERE run_id = $1 AND mapping_id = $2)",
             {SqlParam::Int8(run_id), SqlParam::Int8(mapping_id)})[0]
      .Bool(0);
}

void PackedLedger::VisitUnseen(int64 run_id, bool takes, const std::function<void(const PackedItem &)> &visit,
                               const std::function<void(const PackedItem &)> &met) const {
  pg::SnapshotScope snapshot;  // the hashes are fetched from TOAST after the statements
  pg::AsExtensionOwner as_owner;
  struct Seen {
    int64 id;
    PackedColumn hashes;
  };
  std::vector<Seen> seen;
  int64 bytes = Count(mapping_id_) * static_cast<int64>(Packing::kEntries);
  {
    pg::Rows const rows = Spi::ExecuteKept(
        R"sql(SELECT batch_id, octet_length(hashes), format
              FROM redis_migrate.seen_batch
              WHERE mapping_id = $1 AND run_id = $2
              ORDER BY batch_id)sql",
        {SqlParam::Int8(mapping_id_), SqlParam::Int8(run_id)});
    for (uint64 i = 0; i < rows.size(); ++i) {
      RequirePackedFormat(rows[i].Int4(2));
      bytes += rows[i].Int4(1);
      seen.push_back(
          {rows[i].Int8(0),
           {Packing::kHashes,
            "SELECT substr(hashes, $3, $4) FROM redis_migrate.seen_batch WHERE run_id = $1 AND batch_id = $2",
            ItemsOf(rows[i], 1, Packing::kHashes)}});
    }
  }
  uint64_t const ranges = RangesFor(bytes);
  for (uint64_t i = 0; i < ranges; ++i) {
    HashRange const range = HashRange::Share(i, ranges);
    std::vector<PackedItem> hashes;
    for (Seen &batch : seen)
      batch.hashes.Read(run_id, batch.id, range, ranges,
                        [&](const PackedItem &item) { hashes.push_back(item); });
    std::sort(hashes.begin(), hashes.end());
    LedgerSegments const segments(mapping_id_);
    std::vector<LedgerEvent> gone;
    for (size_t segment = 0; segment < segments.size(); ++segment) {
      if (!segments.Overlaps(segment, range)) continue;
      std::vector<PackedItem> own;
      for (const PackedItem &entry : segments.Read(segment, columns_))
        if (range.Has(entry.hash)) own.push_back(entry);
      for (const PackedItem &entry : Without(own, hashes)) gone.push_back({entry, 0, LedgerEvent::kRemoved});
    }
    for (const LedgerEvent &event : gone) visit(event.item);
    for (const PackedItem &item : hashes) met(item);
    if (takes) segments.Apply(gone, columns_, [](const LedgerEvent &, LedgerFinding) {});
  }
}

}  // namespace prm
