// Sorting what is known by keyed hashes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/siphash.h"

namespace prm {

// Sorts items by hash_of(item); those with the same hash stay in their order. Keyed hashes are spread evenly,
// so that the upper bits of one tell where about its item belongs, and only neighbours are left to compare.
template <typename Item, typename HashOf>
void SortByHash(std::vector<Item>& items, HashOf hash_of) {
  const auto is_less = [&](const Item& a, const Item& b) { return hash_of(a) < hash_of(b); };
  if (std::is_sorted(items.begin(), items.end(), is_less)) return;
  uint64_t lowest = UINT64_MAX;
  uint64_t highest = 0;
  for (const Item& item : items) {
    lowest = std::min(lowest, hash_of(item).high);
    highest = std::max(highest, hash_of(item).high);
  }
  int shift = 0;
  while ((highest - lowest) >> shift >= items.size()) ++shift;
  const auto place = [&](const Item& item) {
    return static_cast<size_t>((hash_of(item).high - lowest) >> shift);
  };
  std::vector<size_t> next(static_cast<size_t>((highest - lowest) >> shift) + 2);
  for (const Item& item : items) ++next[place(item) + 1];
  for (size_t i = 1; i < next.size(); ++i) next[i] += next[i - 1];
  std::vector<Item> sorted(items.size());
  for (Item& item : items) sorted[next[place(item)]++] = std::move(item);
  // By now each number is the end of its place.
  auto begin = sorted.begin();
  for (const size_t last : next) {
    const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(last);
    if (!std::is_sorted(begin, end, is_less)) std::stable_sort(begin, end, is_less);
    begin = end;
  }
  items.swap(sorted);
}

}  // namespace prm
