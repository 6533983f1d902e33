// The sorted part of a packed ledger: rows of entries, each stored under the lowest hash that it can hold.
#pragma once

#include "core/packed_items.h"
#include "pg/pg.h"

namespace prm {

// Errors: XX001 for items that this version does not write.
void UnpackOrThrow(Bytes packed, Packing packing, std::vector<PackedItem> &items);
// Errors: 0A000 if this version does not read the format of a row.
void RequirePackedFormat(int format);

// Needs SPI and an active snapshot, and works with the rights of the extension's owner. Errors: XX001, 0A000.
class LedgerSegments {
 public:
  // Reads the newest rows; or, while others may merge, those of the active snapshot.
  enum Reads : bool { kNewest, kActiveSnapshot };
  explicit LedgerSegments(int64 mapping_id, Reads reads = kNewest);

  size_t size() const { return first_.size(); }
  // Returns the segment that holds a hash if any does. There must be segments. The first also holds hashes
  // below its lowest.
  size_t Find(const Hash128 &hash) const;
  bool Overlaps(size_t segment, const HashRange &range) const;

  // Returns the entries of a segment. Images of other columns than the ledger's are taken as unknown.
  std::vector<PackedItem> Read(size_t segment, int64 columns) const;

  // Applies sorted events and writes the resulting entries. Segments read before are no longer valid.
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
