#include "stream/value_spacing.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace prm::stream {
namespace {

constexpr uint64_t kMb = 1 << 20;

const ValueSpacing::Key kKey = {0, "k"};
const ValueSpacing::Key kOther = {1, "k"};

TEST(ValueSpacingTest, ALargeValueWaitsTwentyTimesWhatItTook) {
  ValueSpacing spacing(1000 * kMb);
  EXPECT_EQ(spacing.PauseMs(kKey, 1000), 0);
  spacing.Note(kKey, kMb, 30, 1000);
  EXPECT_EQ(spacing.BytesOf(kKey), kMb);
  EXPECT_EQ(spacing.PauseMs(kKey, 1000), 600);
  EXPECT_EQ(spacing.PauseMs(kKey, 1599), 1);
  EXPECT_EQ(spacing.PauseMs(kKey, 1600), 0);
  EXPECT_EQ(spacing.PauseMs(kKey, 9999), 0);
  EXPECT_EQ(spacing.PauseMs(kOther, 1000), 0);
  EXPECT_EQ(spacing.BytesOf(kOther), 0U);
}

TEST(ValueSpacingTest, ASmallValueDoesNotWait) {
  ValueSpacing spacing(1000 * kMb);
  spacing.Note(kKey, 100'000, 500, 1000);
  EXPECT_EQ(spacing.PauseMs(kKey, 1000), 0);
  spacing.Note(kKey, kMb, 500, 1000);
  spacing.Note(kKey, 100, 500, 1000);  // it has become small
  EXPECT_EQ(spacing.PauseMs(kKey, 1000), 0);
  EXPECT_EQ(spacing.BytesOf(kKey), 0U);
}

TEST(ValueSpacingTest, AllTogetherKeepToTheCeiling) {
  ValueSpacing spacing(10 * kMb);
  spacing.Note(kKey, 20 * kMb, 1, 1000);
  spacing.Note(kOther, 30 * kMb, 1, 1000);
  EXPECT_EQ(spacing.PauseMs(kKey, 1000), 5000);
  EXPECT_EQ(spacing.PauseMs(kOther, 2000), 4000);
  EXPECT_EQ(spacing.PauseMs({0, "new"}, 1000), 0);
}

TEST(ValueSpacingTest, TimesThatCannotBeDoNoHarm) {
  ValueSpacing spacing(1);
  spacing.Note(kKey, UINT64_MAX, INT64_MAX, 1000);
  EXPECT_EQ(spacing.PauseMs(kKey, 1000), 20 * 3600'000);
  spacing.Note(kKey, kMb, -5, 1000);
  EXPECT_GT(spacing.PauseMs(kKey, 1000), 0);
}

TEST(ValueSpacingTest, KeepsABoundedNumber) {
  ValueSpacing spacing(UINT64_MAX);
  for (int i = 0; i < 30'000; ++i) spacing.Note({0, std::to_string(i)}, kMb, 1000, i);
  int known = 0;
  for (int i = 0; i < 30'000; ++i) known += spacing.BytesOf({0, std::to_string(i)}) > 0 ? 1 : 0;
  EXPECT_LE(known, 10'000);
  EXPECT_GT(spacing.BytesOf({0, "29999"}), 0U);
}

}  // namespace
}  // namespace prm::stream
