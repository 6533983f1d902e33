// The sorted part of a packed ledger: rows of entries by the lowest hash that each can hold.
#pragma once

#include "core/packed_items.h"
#include "pg/pg.h"

namespace prm {

// Errors: XX001 for items that this version does not write.
void UnpackOrThrow(Bytes packed, Packing packing, std::vector<PackedItem> &items);
// Errors: 0A000 if this version does not read the format of a row.
void RequirePackedFormat(int format);

// Needs SPI, and a snapshot that is held; with the rights of the extension's owner. Errors: XX001, 0A000.
class LedgerSegments {
 public:
  // Reads the newest rows, or those of the active snapshot while others may merge.
  enum Reads : bool { kNewest, kActiveSnapshot };
  explicit LedgerSegments(int64 mapping_id, Reads reads = kNewest);

  size_t size() const { return first_.size(); }
  // The segment that holds a hash, if any does; there must be segments. The first holds what is below its
  // lowest hash as well.
  size_t Find(const Hash128 &hash) const;
  bool Overlaps(size_t segment, const HashRange &range) const;

  // The entries of a segment. Images of other columns are unknown.
  std::vector<PackedItem> Read(size_t segment, int64 columns) const;

  // Applies sorted events and writes the entries that result. The segments are then other ones.
  void Apply(const std::vector<LedgerEvent> &events, int64 columns,
             const std::function<void(const LedgerEvent &, LedgerFinding)> &found) const;

 private:
  void Delete(size_t segment) const;
  void Insert(const std::vector<PackedItem> &entries, int64 columns) const;

  int64 mapping_id_;
  Reads reads_;
  std::vector<Hash128> first_;
};

}  // namespace prm
