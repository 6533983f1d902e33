#include "source/reread_budget.h"

#include <gtest/gtest.h>

namespace prm::source {
namespace {

constexpr int64_t kSecond = 1'000'000;

// A reader that reads as fast as the budget allows, with a clock of its own.
class RereadBudgetTest : public testing::Test {
 protected:
  // Reads groups that keep the server busy for `busy_us` each, for so long. Returns the server's time.
  int64_t Read(int64_t busy_us, int64_t for_us, size_t keys = 100) {
    int64_t spent_us = 0;
    for (const int64_t end_us = now_us_ + for_us; now_us_ < end_us;) {
      now_us_ += budget_.PauseUs(now_us_);
      now_us_ += busy_us;
      budget_.Spend(keys, busy_us, now_us_);
      spent_us += busy_us;
    }
    return spent_us;
  }

  void Ping(int64_t took_us, int times) {
    for (int i = 0; i < times; ++i) budget_.NotePing(took_us, now_us_ += 50'000);
  }

  RereadBudget budget_{0.2};
  int64_t now_us_ = 5 * kSecond;
};

TEST_F(RereadBudgetTest, TakesItsShareOfTheTime) {
  const int64_t spent_us = Read(1000, 10 * kSecond);
  EXPECT_GT(spent_us, 1'990'000);
  EXPECT_LT(spent_us, 2'060'000);  // and what was saved before
}

TEST_F(RereadBudgetTest, TakesItAlsoInLargePieces) {
  const int64_t spent_us = Read(500'000, 100 * kSecond);
  EXPECT_GT(spent_us, 19 * kSecond);
  EXPECT_LT(spent_us, 21 * kSecond);
}

TEST_F(RereadBudgetTest, DoesNotPauseBelowItsShare) {
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(budget_.PauseUs(now_us_), 0);
    budget_.Spend(100, 900, now_us_ += 5000);
  }
}

TEST_F(RereadBudgetTest, SavesNoMoreThanATenthOfASecond) {
  budget_.Spend(1, 1, now_us_);
  now_us_ += 3600 * kSecond;
  budget_.Spend(1, 20'000, now_us_);
  EXPECT_EQ(budget_.PauseUs(now_us_), 0);
  budget_.Spend(1, 10'000, now_us_);  // 4 ms were left, and 2 ms belong to this
  EXPECT_NEAR(static_cast<double>(budget_.PauseUs(now_us_)), 20'000, 2);
}

TEST_F(RereadBudgetTest, AClockThatStandsStillDoesNoHarm) {
  budget_.Spend(10, 100'000, now_us_);
  budget_.Spend(10, 100'000, now_us_ - 1000);
  EXPECT_GT(budget_.PauseUs(now_us_), 0);
  budget_.Spend(10, -5, now_us_);
}

TEST_F(RereadBudgetTest, AQuestionCostsTimeButIsNoKey) {
  budget_.Spend(100, 1000, now_us_);
  budget_.Spend(0, 500'000, now_us_);
  EXPECT_EQ(budget_.KeysAtOnce(), 100U);
  EXPECT_GT(budget_.PauseUs(now_us_), 1'900'000);
}

TEST_F(RereadBudgetTest, KeepsAnExecShort) {
  EXPECT_EQ(budget_.KeysAtOnce(), 200U);
  budget_.Spend(200, 400, now_us_);  // 2 us a key
  EXPECT_EQ(budget_.KeysAtOnce(), 200U);
  for (int i = 0; i < 50; ++i) budget_.Spend(50, 1000, now_us_);  // 20 us a key
  EXPECT_NEAR(static_cast<double>(budget_.KeysAtOnce()), 50, 1);
  for (int i = 0; i < 50; ++i) budget_.Spend(1, 30'000, now_us_);
  EXPECT_EQ(budget_.KeysAtOnce(), 1U);
  for (int i = 0; i < 100; ++i) budget_.Spend(1, 0, now_us_);
  EXPECT_EQ(budget_.KeysAtOnce(), 200U);
}

TEST_F(RereadBudgetTest, KeepsATurnShorter) {
  EXPECT_EQ(budget_.KeysInTurn(), 200U);
  budget_.Spend(200, 400, now_us_);  // 2 us a key
  EXPECT_EQ(budget_.KeysInTurn(), 50U);
  for (int i = 0; i < 50; ++i) budget_.Spend(50, 1000, now_us_);
  EXPECT_NEAR(static_cast<double>(budget_.KeysInTurn()), 5, 1);
  for (int i = 0; i < 50; ++i) budget_.Spend(1, 30'000, now_us_);
  EXPECT_EQ(budget_.KeysInTurn(), 1U);
}

TEST_F(RereadBudgetTest, AsksTwentyTimesASecond) {
  EXPECT_TRUE(budget_.WantsPing(now_us_));
  budget_.NotePing(100, now_us_);
  EXPECT_FALSE(budget_.WantsPing(now_us_ + 49'999));
  EXPECT_TRUE(budget_.WantsPing(now_us_ + 50'000));
}

TEST_F(RereadBudgetTest, SlowsDownWhenTheServerAnswersHalfAsFast) {
  Ping(3000, 200);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.2);
  Ping(5900, 100);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.2);
  Ping(3000, 98);
  Ping(7000, 2);  // two of a hundred
  EXPECT_DOUBLE_EQ(budget_.share(), 0.1);
  Ping(7000, 100);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.05);
  const int64_t spent_us = Read(1000, 10 * kSecond);
  EXPECT_LT(spent_us, 520'000);
  Ping(3000, 100);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.1);
  Ping(3000, 100);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.2);
  Ping(3000, 99);
  Ping(7000, 1);  // one of a hundred
  EXPECT_DOUBLE_EQ(budget_.share(), 0.2);
}

TEST_F(RereadBudgetTest, ReadsAsBeforeIfLessReadingDoesNotHelp) {
  Ping(3000, 100);
  Ping(60'000, 4 * 100);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.2 / 16);
  Ping(60'000, 100);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.2);
  for (int window = 0; window < 12; ++window) {  // whatever happens within a minute
    Ping(window % 2 == 0 ? 3000 : 90'000, 100);
    EXPECT_DOUBLE_EQ(budget_.share(), 0.2);
  }
  Ping(60'000, 10 * 100);  // as it was when it was excused
  EXPECT_DOUBLE_EQ(budget_.share(), 0.2);
  Ping(130'000, 100);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.1);
}

TEST_F(RereadBudgetTest, WhatIsQuickAnywayIsNotSlow) {
  Ping(100, 100);
  Ping(1900, 300);
  EXPECT_DOUBLE_EQ(budget_.share(), 0.2);
}

}  // namespace
}  // namespace prm::source
