// The entries of packed ledgers as bytes: items of a fixed size in ascending order of their hashes. All
// words are big endian, so that the bytes are in the order of the hashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/siphash.h"

namespace prm {

// The layout of packed items that this version writes and reads.
constexpr int kPackedFormat = 1;

// How many bytes an item has, and with them its fields.
enum class Packing : size_t {
  kHashes = 16,   // hash
  kEntries = 24,  // hash, image
  kChanges = 32,  // hash, image, prior
};

// An image stands for the values of a row. 0: unknown.
struct PackedItem {
  Hash128 hash;
  uint64_t image = 0;
  uint64_t prior = 0;  // the image before a change
  bool operator<(const PackedItem& other) const { return hash < other.hash; }
  bool operator==(const PackedItem& other) const {
    return hash == other.hash && image == other.image && prior == other.prior;
  }
};

// A range of hashes, by their high words; both ends are in it.
struct HashRange {
  uint64_t first = 0;
  uint64_t last = UINT64_MAX;

  // One of `count` ranges of about equal size that cover all hashes; count > 0, index < count.
  static HashRange Share(uint64_t index, uint64_t count);
  bool Has(const Hash128& hash) const { return first <= hash.high && hash.high <= last; }
};

// The items in any order. Of those with the same hash the last is packed.
std::string Pack(std::vector<PackedItem> items, Packing packing);

// Appends what is packed. False: these are no whole items in ascending order, and nothing is appended.
bool Unpack(Bytes packed, Packing packing, std::vector<PackedItem>& items);

// The change that a batch made to a row.
struct LedgerEvent {
  enum Kind : char {
    kInserted,   // it was not there and became the mapping's
    kTaken,      // it was there and is the mapping's, with other values than before
    kRefreshed,  // it was there and has other values now; it is the mapping's if it was that before
    kRemoved,    // it is the mapping's no more
  };
  PackedItem item;
  uint32_t batch;  // in the order of time
  Kind kind;
};

// A finding about a row whose entry a batch's event meets.
enum class LedgerFinding {
  kChangedHere,  // somebody else has changed the row since it was stored
  kDeletedHere,  // somebody else has deleted it
};

// Sorted entries after sorted events from `begin` to before `end`.
std::vector<PackedItem> ApplyEvents(const std::vector<PackedItem>& entries, const LedgerEvent* begin,
                                    const LedgerEvent* end,
                                    const std::function<void(const LedgerEvent&, LedgerFinding)>& found);

// Returns the items of the first set that are not in the second; both are sorted.
std::vector<PackedItem> Without(const std::vector<PackedItem>& items, const std::vector<PackedItem>& others);

}  // namespace prm
