#include "core/hash_set.h"

#include <gtest/gtest.h>

namespace prm {
namespace {

// With few places, so that they meet.
Hash128 HashOf(uint64_t i) {
  Hash128 hash;
  hash.low = i % 7;
  hash.high = i;
  return hash;
}

TEST(HashSet, HoldsWhatWasInserted) {
  HashSet set;
  EXPECT_FALSE(set.Contains(HashOf(1)));
  for (uint64_t i = 0; i < 3000; ++i) {
    ASSERT_TRUE(set.Insert(HashOf(i))) << i;
    ASSERT_FALSE(set.Insert(HashOf(i))) << i;
  }
  EXPECT_EQ(set.size(), 3000U);
  for (uint64_t i = 0; i < 3000; ++i) ASSERT_TRUE(set.Contains(HashOf(i))) << i;
  EXPECT_FALSE(set.Contains(HashOf(3000)));
  set.Clear();
  EXPECT_EQ(set.size(), 0U);
  EXPECT_FALSE(set.Contains(HashOf(1)));
  EXPECT_TRUE(set.Insert(HashOf(1)));
}

TEST(HashSet, HoldsTheHashOfZeros) {
  HashSet set;
  EXPECT_TRUE(set.Insert(Hash128{}));
  EXPECT_FALSE(set.Insert(Hash128{}));
  EXPECT_TRUE(set.Contains(Hash128{}));
}

TEST(HashSet, KeepsItsHashesWhenRoomIsReserved) {
  HashSet set;
  for (uint64_t i = 0; i < 100; ++i) set.Insert(HashOf(i));
  set.Reserve(100000);
  EXPECT_EQ(set.size(), 100U);
  for (uint64_t i = 0; i < 100; ++i) EXPECT_TRUE(set.Contains(HashOf(i))) << i;
}

}  // namespace
}  // namespace prm
