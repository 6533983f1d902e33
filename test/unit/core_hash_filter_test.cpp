#include "core/hash_filter.h"

#include <gtest/gtest.h>

#include <random>

namespace prm {
namespace {

TEST(HashFilter, ForgetsNone) {
  HashFilter filter;
  std::mt19937_64 hash(1);
  EXPECT_FALSE(filter.MayHold(hash()));
  for (int i = 0; i < 100000; ++i) filter.Add(hash());
  hash.seed(1);
  hash();
  for (int i = 0; i < 100000; ++i) ASSERT_TRUE(filter.MayHold(hash())) << i;
  filter.Add(0);
  EXPECT_TRUE(filter.MayHold(0));
}

TEST(HashFilter, TakesFewOthersForItsOwn) {
  HashFilter filter;
  std::mt19937_64 hash(1);
  for (int i = 0; i < 2000000; ++i) filter.Add(hash());
  int mistaken = 0;
  for (int i = 0; i < 100000; ++i) mistaken += filter.MayHold(hash()) ? 1 : 0;
  EXPECT_LT(mistaken, 500);
}

}  // namespace
}  // namespace prm
