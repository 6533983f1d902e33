#include "source/entry_order.h"

#include <algorithm>
#include <tuple>

#include "core/bytes.h"

namespace prm::source {

namespace {

// Eight bytes of a key from `at` on as a number that sorts like them; a byte that the key lacks is 0.
uint64_t Digits(Bytes key, size_t at) {
  uint64_t digits = 0;
  for (size_t i = 0; i < 8; ++i)
    digits = digits << 8 | (at + i < key.size() ? static_cast<unsigned char>(key[at + i]) : 0);
  return digits;
}

}  // namespace

// Keys of a pattern begin alike, and what follows decides most comparisons without a look at the key.
void SortByKey(std::vector<const Entry *> &entries) {
  if (entries.empty()) return;
  size_t common = entries.front()->key.size();
  for (const Entry *entry : entries)
    common = CommonBytes(Bytes(entries.front()->key).substr(0, common), entry->key);
  struct Place {
    int db;
    uint64_t digits;
    const Entry *entry;
  };
  std::vector<Place> places;
  places.reserve(entries.size());
  for (const Entry *entry : entries) places.push_back({entry->db, Digits(entry->key, common), entry});
  std::sort(places.begin(), places.end(), [](const Place &a, const Place &b) {
    if (a.db != b.db) return a.db < b.db;
    return a.digits != b.digits ? a.digits < b.digits : a.entry->key < b.entry->key;
  });
  for (size_t i = 0; i < entries.size(); ++i) entries[i] = places[i].entry;
}

}  // namespace prm::source
