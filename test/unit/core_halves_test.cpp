#include "core/halves.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace prm {
namespace {

// The items that fail alone, of which a range fails that has one; and how many ranges were tried.
std::pair<std::set<size_t>, int> FindBad(size_t count, const std::set<size_t>& bad) {
  std::set<size_t> found;
  std::set<size_t> passed;
  int tries = 0;
  for (Halves range(count); !range.done();) {
    ++tries;
    EXPECT_LT(range.begin(), range.end());
    EXPECT_LE(range.end(), count);
    auto const first = bad.lower_bound(range.begin());
    if (first != bad.end() && *first < range.end()) {
      if (range.Split()) continue;
      found.insert(range.begin());
    } else {
      for (size_t i = range.begin(); i < range.end(); ++i) EXPECT_TRUE(passed.insert(i).second);
    }
    range.Next();
  }
  EXPECT_EQ(passed.size() + found.size(), count);
  return {found, tries};
}

TEST(Halves, HasNothingToTryWithoutItems) { EXPECT_TRUE(Halves(0).done()); }

TEST(Halves, TriesAllAtOnceIfNoneFails) {
  EXPECT_EQ(FindBad(1, {}), std::make_pair(std::set<size_t>{}, 1));
  EXPECT_EQ(FindBad(1000, {}), std::make_pair(std::set<size_t>{}, 1));
}

TEST(Halves, FindsEachItemThatFails) {
  for (size_t count : {1, 2, 3, 7, 100})
    for (size_t bad = 0; bad < count; ++bad) EXPECT_EQ(FindBad(count, {bad}).first, std::set<size_t>{bad});
  std::set<size_t> const some = {0, 1, 17, 63, 64, 99};
  EXPECT_EQ(FindBad(100, some).first, some);
  EXPECT_EQ(FindBad(5, {0, 1, 2, 3, 4}).first, (std::set<size_t>{0, 1, 2, 3, 4}));
}

TEST(Halves, BeginsBehindOthers) {
  Halves range(10, 4);
  EXPECT_EQ(range.begin(), 4u);
  EXPECT_TRUE(range.Split());
  EXPECT_EQ(range.end(), 7u);
  range.Next();
  EXPECT_EQ(std::make_pair(range.begin(), range.end()), std::make_pair(size_t{7}, size_t{10}));
  range.Next();
  EXPECT_TRUE(range.done());
  EXPECT_TRUE(Halves(10, 10).done());
}

TEST(Halves, FindsOneOfManyInFewTries) { EXPECT_LE(FindBad(1 << 15, {7777}).second, 32); }

}  // namespace
}  // namespace prm
