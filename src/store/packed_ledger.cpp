#include "store/packed_ledger.h"

#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "pg/wait.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr size_t kSegmentHashes = 2000;
// As much as is worked on at once: with more, the hashes are divided into ranges that are worked on in turn.
constexpr int64 kBytesAtOnce = 8 * 1024 * 1024;

uint64_t RangesFor(int64 bytes) { return static_cast<uint64_t>(bytes / kBytesAtOnce) + 1; }

Hash128 HashOf(Datum packed) {
  std::vector<Hash128> hashes;
  UnpackHashes(pg::DatumBytes(packed), {}, hashes);
  return hashes.at(0);
}

}  // namespace

// The segments by the lowest hash that each can hold. The first holds what is below its own as well.
class PackedLedger::Segments {
 public:
  explicit Segments(int64 mapping_id) : mapping_id_(mapping_id) {
    pg::Context context("redis_migrate ledger");
    pg::SwitchContext in_context(context.get());
    pg::Rows const rows = Spi::ExecuteKept(
        "SELECT first_hash FROM redis_migrate.ledger_segment WHERE mapping_id = $1 ORDER BY first_hash",
        {SqlParam::Int8(mapping_id_)});
    for (uint64 i = 0; i < rows.size(); ++i) first_.push_back(HashOf(rows[i].Value(0)));
  }

  size_t size() const { return first_.size(); }
  // The segment that holds a hash, if any does; there must be segments.
  size_t Find(const Hash128 &hash) const {
    auto after = std::upper_bound(first_.begin(), first_.end(), hash);
    return after == first_.begin() ? 0 : static_cast<size_t>(after - first_.begin()) - 1;
  }
  bool Overlaps(size_t segment, const HashRange &range) const {
    return (segment == 0 || first_[segment].high <= range.last) &&
           (segment + 1 == first_.size() || first_[segment + 1].high >= range.first);
  }

  void Read(size_t segment, const HashRange &range, std::vector<Hash128> &hashes) const {
    pg::CheckInterrupts();
    pg::Context context("redis_migrate ledger");
    pg::SwitchContext in_context(context.get());
    pg::Rows const rows = Spi::ExecuteKept(
        "SELECT hashes FROM redis_migrate.ledger_segment WHERE mapping_id = $1 AND first_hash = $2",
        {SqlParam::Int8(mapping_id_), SqlParam::Bytea(PackHashes({first_[segment]}))});
    if (rows.size() > 0) UnpackHashes(pg::DatumBytes(rows[0].Value(0)), range, hashes);
  }

  // Writes changes that KeepNewest has left. The segments are then other ones.
  void Apply(const std::vector<HashChange> &changes) const {
    const HashChange *change = changes.data();
    const HashChange *const end = change + changes.size();
    while (change != end) {
      std::vector<Hash128> old;
      const HashChange *last = end;
      if (!first_.empty()) {
        size_t const segment = Find(change->hash);
        if (segment + 1 < first_.size())
          last = std::lower_bound(change, end, first_[segment + 1],
                                  [](const HashChange &a, const Hash128 &hash) { return a.hash < hash; });
        Read(segment, {}, old);
        std::vector<Hash128> const changed = ApplyChanges(old, change, last);
        if (changed != old) {
          Delete(segment);
          Insert(changed);
        }
      } else {
        Insert(ApplyChanges(old, change, last));
      }
      change = last;
    }
  }

 private:
  void Delete(size_t segment) const {
    pg::Context context("redis_migrate ledger");
    pg::SwitchContext in_context(context.get());
    Spi::ExecuteKept("DELETE FROM redis_migrate.ledger_segment WHERE mapping_id = $1 AND first_hash = $2",
                     {SqlParam::Int8(mapping_id_), SqlParam::Bytea(PackHashes({first_[segment]}))});
  }

  // In parts of about the same size.
  void Insert(const std::vector<Hash128> &hashes) const {
    size_t const parts = (hashes.size() + kSegmentHashes - 1) / kSegmentHashes;
    for (size_t part = 0; part < parts; ++part) {
      pg::Context context("redis_migrate ledger");
      pg::SwitchContext in_context(context.get());
      auto const begin = hashes.begin() + static_cast<long>(hashes.size() * part / parts);
      auto const end = hashes.begin() + static_cast<long>(hashes.size() * (part + 1) / parts);
      Spi::ExecuteKept(
          "INSERT INTO redis_migrate.ledger_segment (mapping_id, first_hash, hashes) VALUES ($1, $2, $3)",
          {SqlParam::Int8(mapping_id_), SqlParam::Bytea(PackHashes({*begin})),
           SqlParam::Bytea(PackHashes(std::vector<Hash128>(begin, end)))});
    }
  }

  int64 mapping_id_;
  std::vector<Hash128> first_;
};

namespace {

// Rows of hashes: their numbers, in order, and how many bytes they have together.
struct Batches {
  std::vector<int64> ids;
  int64 bytes = 0;
};

Batches ListBatches(const char *sql, std::initializer_list<SqlParam> params) {
  pg::Rows const rows = Spi::ExecuteKept(sql, params);
  Batches batches;
  for (uint64 i = 0; i < rows.size(); ++i) {
    batches.ids.push_back(rows[i].Int8(0));
    batches.bytes += rows[i].Int8(1);
  }
  return batches;
}

Batches ListAppended(int64 mapping_id) {
  return ListBatches(
      "SELECT batch_id, (octet_length(stored) + octet_length(removed))::bigint FROM "
      "redis_migrate.ledger_batch WHERE mapping_id = $1 ORDER BY batch_id",
      {SqlParam::Int8(mapping_id)});
}

template <typename Visit>
void ReadAppended(int64 mapping_id, int64 batch_id, Visit visit) {
  pg::CheckInterrupts();
  pg::Context context("redis_migrate ledger");
  pg::SwitchContext in_context(context.get());
  pg::Rows const rows = Spi::ExecuteKept(
      "SELECT stored, removed FROM redis_migrate.ledger_batch WHERE mapping_id = $1 AND batch_id = $2",
      {SqlParam::Int8(mapping_id), SqlParam::Int8(batch_id)});
  if (rows.size() > 0) visit(pg::DatumBytes(rows[0].Value(0)), pg::DatumBytes(rows[0].Value(1)));
}

}  // namespace

void PackedLedger::Append(std::vector<Hash128> stored, std::vector<Hash128> removed) const {
  if (stored.empty() && removed.empty()) return;
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept("INSERT INTO redis_migrate.ledger_batch (mapping_id, stored, removed) VALUES ($1, $2, $3)",
                   {SqlParam::Int8(mapping_id_), SqlParam::Bytea(PackHashes(std::move(stored))),
                    SqlParam::Bytea(PackHashes(std::move(removed)))});
}

std::vector<Hash128> PackedLedger::FindOwn(std::vector<Hash128> hashes) const {
  std::sort(hashes.begin(), hashes.end());
  std::vector<Hash128> own;
  pg::SnapshotScope snapshot;  // the hashes are fetched from TOAST after the statements
  pg::AsExtensionOwner as_owner;
  Batches const appended = ListAppended(mapping_id_);
  for (auto id = appended.ids.rbegin(); id != appended.ids.rend() && !hashes.empty(); ++id)
    ReadAppended(mapping_id_, *id, [&](Bytes stored, Bytes removed) {
      std::vector<Hash128> rest;
      for (const Hash128 &hash : hashes) {
        if (PackedHashesContain(stored, hash))
          own.push_back(hash);
        else if (!PackedHashesContain(removed, hash))
          rest.push_back(hash);
      }
      hashes = std::move(rest);
    });
  Segments const segments(mapping_id_);
  std::vector<Hash128> held;
  std::optional<size_t> read;
  for (const Hash128 &hash : hashes) {
    if (segments.size() == 0) break;
    size_t const segment = segments.Find(hash);
    if (segment != read) {
      held.clear();
      segments.Read(segment, {}, held);
      read = segment;
    }
    if (std::binary_search(held.begin(), held.end(), hash)) own.push_back(hash);
  }
  std::sort(own.begin(), own.end());
  return own;
}

void PackedLedger::Merge() const {
  pg::SnapshotScope snapshot;  // the hashes are fetched from TOAST after the statements
  pg::AsExtensionOwner as_owner;
  Batches const appended = ListAppended(mapping_id_);
  if (appended.ids.empty()) return;
  uint64_t const ranges = RangesFor(appended.bytes);
  for (uint64_t i = 0; i < ranges; ++i) {
    HashRange const range = HashRange::Share(i, ranges);
    std::vector<HashChange> changes;
    std::vector<Hash128> hashes;
    for (int64 id : appended.ids)
      ReadAppended(mapping_id_, id, [&](Bytes stored, Bytes removed) {
        for (bool const added : {true, false}) {
          hashes.clear();
          UnpackHashes(added ? stored : removed, range, hashes);
          for (const Hash128 &hash : hashes) changes.push_back({hash, added});
        }
      });
    KeepNewest(changes);
    Segments(mapping_id_).Apply(changes);
  }
  Spi::ExecuteKept("DELETE FROM redis_migrate.ledger_batch WHERE mapping_id = $1 AND batch_id <= $2",
                   {SqlParam::Int8(mapping_id_), SqlParam::Int8(appended.ids.back())});
}

int64 PackedLedger::Count() const {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             "SELECT (coalesce(sum(octet_length(hashes)), 0) / $2)::bigint FROM redis_migrate.ledger_segment "
             "WHERE mapping_id = $1",
             {SqlParam::Int8(mapping_id_), SqlParam::Int8(kPackedHashBytes)})[0]
      .Int8(0);
}

void PackedLedger::NoteSeen(int64 run_id, std::vector<Hash128> hashes) const {
  if (hashes.empty()) return;
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      "INSERT INTO redis_migrate.seen_batch (run_id, mapping_id, hashes) VALUES ($1, $2, $3)",
      {SqlParam::Int8(run_id), SqlParam::Int8(mapping_id_), SqlParam::Bytea(PackHashes(std::move(hashes)))});
}

bool PackedLedger::HasSeen(int64 run_id) const {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             "SELECT EXISTS (SELECT FROM redis_migrate.seen_batch WHERE run_id = $1 AND mapping_id = $2)",
             {SqlParam::Int8(run_id), SqlParam::Int8(mapping_id_)})[0]
      .Bool(0);
}

void PackedLedger::TakeUnseen(int64 run_id, const std::function<void(const Hash128 &)> &visit) const {
  pg::SnapshotScope snapshot;  // the hashes are fetched from TOAST after the statements
  pg::AsExtensionOwner as_owner;
  Batches const seen = ListBatches(
      "SELECT batch_id, octet_length(hashes)::bigint FROM redis_migrate.seen_batch WHERE run_id = $1 AND "
      "mapping_id = $2 ORDER BY batch_id",
      {SqlParam::Int8(run_id), SqlParam::Int8(mapping_id_)});
  uint64_t const ranges = RangesFor(seen.bytes + Count() * static_cast<int64>(kPackedHashBytes));
  for (uint64_t i = 0; i < ranges; ++i) {
    HashRange const range = HashRange::Share(i, ranges);
    std::vector<Hash128> met;
    for (int64 id : seen.ids) {
      pg::CheckInterrupts();
      pg::Context context("redis_migrate ledger");
      pg::SwitchContext in_context(context.get());
      pg::Rows const rows = Spi::ExecuteKept(
          "SELECT hashes FROM redis_migrate.seen_batch WHERE run_id = $1 AND mapping_id = $2 AND batch_id = "
          "$3",
          {SqlParam::Int8(run_id), SqlParam::Int8(mapping_id_), SqlParam::Int8(id)});
      if (rows.size() > 0) UnpackHashes(pg::DatumBytes(rows[0].Value(0)), range, met);
    }
    std::sort(met.begin(), met.end());
    Segments const segments(mapping_id_);
    std::vector<HashChange> gone;
    for (size_t segment = 0; segment < segments.size(); ++segment) {
      if (!segments.Overlaps(segment, range)) continue;
      std::vector<Hash128> own;
      segments.Read(segment, range, own);
      for (const Hash128 &hash : WithoutHashes(own, met)) gone.push_back({hash, false});
    }
    for (const HashChange &change : gone) visit(change.hash);
    segments.Apply(gone);
  }
}

}  // namespace prm
