#include "core/recent_names.h"

#include <gtest/gtest.h>

#include <string>

namespace prm {
namespace {

constexpr SipKey kKey = {1, 2};

TEST(RecentNames, KnowsWhatItHasSeen) {
  RecentNames names(kKey);
  EXPECT_TRUE(names.Insert("a"));
  EXPECT_TRUE(names.Insert("b"));
  EXPECT_TRUE(names.Insert(""));
  EXPECT_FALSE(names.Insert("a"));
  EXPECT_FALSE(names.Insert(""));
  names.Clear();
  EXPECT_TRUE(names.Insert("a"));
}

TEST(RecentNames, LooksAheadWithoutNotingAName) {
  RecentNames names(kKey);
  const Hash128 a = names.Look("a");
  const Hash128 again = names.Look("a");
  EXPECT_TRUE(names.Insert(a));
  EXPECT_FALSE(names.Insert(again));
  EXPECT_FALSE(names.Insert("a"));
  EXPECT_TRUE(names.Insert(names.Look("b")));
}

TEST(RecentNames, KnowsAtLeastOneGenerationAndAtMostTwo) {
  constexpr int kGeneration = 5000;  // so that the tables grow
  RecentNames names(kKey, kGeneration);
  const auto name = [](int i) { return "name:" + std::to_string(i); };
  for (int i = 0; i < 4 * kGeneration + kGeneration / 2; ++i) ASSERT_TRUE(names.Insert(name(i))) << i;
  // Generations in memory: 3 (full) and 4 (half).
  for (int i = 3 * kGeneration; i < 4 * kGeneration + kGeneration / 2; i += 2)
    ASSERT_FALSE(names.Insert(name(i))) << i;
  for (int i = 2 * kGeneration; i < 2 * kGeneration + 10; ++i) ASSERT_TRUE(names.Insert(name(i))) << i;
}

TEST(RecentNames, RemembersALaterSightingLonger) {
  RecentNames names(kKey, 100);
  EXPECT_TRUE(names.Insert("old"));
  for (int i = 0; i < 120; ++i) names.Insert("x" + std::to_string(i));
  EXPECT_FALSE(names.Insert("old"));
  for (int i = 0; i < 99; ++i) names.Insert("y" + std::to_string(i));
  EXPECT_FALSE(names.Insert("old"));
}

}  // namespace
}  // namespace prm
