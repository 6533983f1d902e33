// The order of the keys of a batch.
#include "source/entry_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

namespace prm::source {
namespace {

using std::string_literals::operator""s;

// Each database and key in the order in which they sort.
void ExpectOrder(std::vector<std::pair<int, std::string>> keys) {
  std::vector<Entry> entries;
  for (const auto& [db, key] : keys) {
    Entry& entry = entries.emplace_back();
    entry.db = db;
    entry.key = key;
  }
  std::vector<const Entry*> pointers;
  for (const Entry& entry : entries) pointers.push_back(&entry);
  const std::vector<const Entry*> expected = pointers;
  std::sort(pointers.begin(), pointers.end());
  do {
    std::vector<const Entry*> sorted = pointers;
    SortByKey(sorted);
    ASSERT_EQ(sorted, expected) << keys.front().second;
  } while (std::next_permutation(pointers.begin(), pointers.end()));
}

TEST(EntryOrder, SortsBytesAsUnsigned) {
  ExpectOrder({{0, "user:A"}, {0, "user:a"}, {0, "user:\xc3\xa9"}, {0, "v"}});
}

TEST(EntryOrder, APrefixComesFirstAndAZeroByteAfterIt) {
  ExpectOrder({{0, ""}, {0, "\0"s}, {0, "\0\0"s}, {0, "\0a"s}, {0, "a"}});
  ExpectOrder({{0, "user:"}, {0, "user:\0"s}, {0, "user:\0\0\0\0\0\0\0\0"s}, {0, "user:\0\0\0\0\0\0\0\0a"s}});
}

TEST(EntryOrder, KeysThatDifferOnlyFarBehind) {
  ExpectOrder(
      {{0, "user:x12345678a"}, {0, "user:x12345678b"}, {0, "user:y12345678"}, {0, "user:y12345678a"}});
}

TEST(EntryOrder, DatabasesComeFirst) { ExpectOrder({{0, "z"}, {1, "a"}, {1, "b"}, {12, "a"}}); }

TEST(EntryOrder, Nothing) {
  std::vector<const Entry*> none;
  SortByKey(none);
  EXPECT_TRUE(none.empty());
}

}  // namespace
}  // namespace prm::source
