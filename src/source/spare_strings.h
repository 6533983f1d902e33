// The strings of entries that are no longer needed.
#pragma once

#include <cstddef>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "source/entry.h"

namespace prm::source {

// Thousands of small strings cost more to free and to allocate than to fill.
class SpareStrings {
 public:
  // Takes the strings of a batch's entries in place of those of the batch before. Long ones are freed with
  // their entries.
  void Keep(std::vector<Entry>& entries) {
    spare_.clear();
    for (Entry& entry : entries)
      if (entry.key.capacity() + entry.payload.capacity() <= kMostBytes)
        spare_.emplace_back(std::move(entry.key), std::move(entry.payload));
  }

  // Gives a new entry strings with memory, if there are any.
  void Give(Entry& entry) {
    if (spare_.empty()) return;
    std::tie(entry.key, entry.payload) = std::move(spare_.back());
    spare_.pop_back();
    entry.key.clear();
    entry.payload.clear();
  }

 private:
  static constexpr size_t kMostBytes = 2 * kShortStringLimit;

  std::vector<std::pair<std::string, std::string>> spare_;
};

}  // namespace prm::source
