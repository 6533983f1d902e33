#include "core/rate_limit.h"

#include <gtest/gtest.h>

#include <deque>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <vector>

namespace prm {
namespace {

constexpr int64_t kSecond = 1000000000;
constexpr int64_t kNow = 1700000000 * kSecond;  // 2023

RateLimit Limit(RateAlgorithm algorithm, int64_t quota, int64_t period, int64_t burst = 0) {
  auto limit = MakeRateLimit(algorithm, quota, period, burst);
  EXPECT_TRUE(limit.ok());
  return limit.value();
}

// Decides and keeps the state as a store would.
RateDecision Ask(const RateLimit& limit, RateState* stored, int64_t now, int64_t cost) {
  RateState state = *stored;
  RateDecision decision = Decide(limit, &state, now, cost);
  if (decision.store) *stored = state;
  return decision;
}

RateAlgorithm AlgorithmNamed(const std::string& name) {
  static const std::map<std::string, RateAlgorithm> names = {
      {"gcra", RateAlgorithm::kGcra},
      {"fixed_window", RateAlgorithm::kFixedWindow},
      {"fixed_window_first_hit", RateAlgorithm::kFixedWindowFirstHit},
      {"sliding_window", RateAlgorithm::kSlidingWindow}};
  return names.at(name);
}

// test/data/rate_limit_vectors.tsv: what other implementations' own tests and documents state ("peer"), and
// what follows from the formulas ("computed"). The rows of a suite are requests for one key, in turn; a
// negative cost is given back, and the row shows what a look says afterwards.
TEST(RateLimit, Vectors) {
  std::ifstream file(PRM_REPOSITORY_DIR "/test/data/rate_limit_vectors.tsv");
  std::string line, suite;
  std::getline(file, line);
  RateState state;
  int rows = 0;
  while (std::getline(file, line)) {
    SCOPED_TRACE(line);
    std::istringstream fields(line);
    std::string name, source, algorithm, allowed;
    std::getline(fields, name, '\t');
    int64_t quota, period, burst, now, cost, remaining, reset, retry;
    fields >> source >> algorithm >> quota >> period >> burst >> now >> cost >> allowed >> remaining >>
        reset >> retry;
    ASSERT_TRUE(fields);
    if (name != suite) state = RateState{};
    suite = name;
    const RateLimit limit = Limit(AlgorithmNamed(algorithm), quota, period, burst);
    if (cost < 0) Refund(limit, &state, now, -cost);
    const RateDecision decision = Ask(limit, &state, now, std::max<int64_t>(cost, 0));
    EXPECT_EQ(decision.allowed, allowed == "t");
    EXPECT_EQ(decision.remaining, remaining);
    EXPECT_EQ(decision.reset, reset);
    EXPECT_EQ(decision.allowed || decision.never ? -1 : decision.retry, retry);
    rows++;
  }
  EXPECT_GT(rows, 275);
}

TEST(RateLimit, RefusesImpossibleNumbers) {
  for (auto algorithm : {RateAlgorithm::kGcra, RateAlgorithm::kFixedWindow, RateAlgorithm::kSlidingWindow}) {
    EXPECT_FALSE(MakeRateLimit(algorithm, 0, kSecond, 0).ok());
    EXPECT_FALSE(MakeRateLimit(algorithm, -1, kSecond, 0).ok());
    EXPECT_FALSE(MakeRateLimit(algorithm, 1, 0, 0).ok());
    EXPECT_FALSE(MakeRateLimit(algorithm, 1, kLongestDrain + 1, 0).ok());
    EXPECT_TRUE(MakeRateLimit(algorithm, 1, kLongestDrain, 0).ok());
  }
  EXPECT_FALSE(MakeRateLimit(RateAlgorithm::kGcra, 1, kSecond, -1).ok());
  EXPECT_FALSE(MakeRateLimit(RateAlgorithm::kGcra, kSecond + 1, kSecond, 1).ok());
  EXPECT_FALSE(MakeRateLimit(RateAlgorithm::kGcra, 1, kLongestDrain, 2).ok());
  EXPECT_FALSE(MakeRateLimit(RateAlgorithm::kGcra, 1, kSecond, INT64_MAX).ok());
  EXPECT_FALSE(MakeRateLimit(RateAlgorithm::kFixedWindow, 1, kSecond, 1).ok());
}

TEST(RateLimit, RatesFromOnePerYearToAMillionPerSecond) {
  const int64_t year = 365 * 86400 * kSecond;
  RateState state;
  const RateLimit slow = Limit(RateAlgorithm::kGcra, 1, year);
  EXPECT_TRUE(Ask(slow, &state, kNow, 1).allowed);
  EXPECT_EQ(Ask(slow, &state, kNow + kSecond, 1).retry, year - kSecond);
  EXPECT_TRUE(Ask(slow, &state, kNow + year, 1).allowed);
  state = RateState{};
  const RateLimit fast = Limit(RateAlgorithm::kGcra, 1000000, kSecond);
  EXPECT_TRUE(Ask(fast, &state, kNow, 1000000).allowed);
  EXPECT_EQ(Ask(fast, &state, kNow, 1).retry, 1000);
  EXPECT_EQ(Ask(fast, &state, kNow + kSecond / 2, 0).remaining, 500000);
}

TEST(RateLimit, ALoweredOrShortenedWindowHoldsAtOnce) {
  for (auto algorithm :
       {RateAlgorithm::kFixedWindow, RateAlgorithm::kFixedWindowFirstHit, RateAlgorithm::kSlidingWindow}) {
    const RateLimit hour = Limit(algorithm, 100, 3600 * kSecond);
    const RateLimit lower = Limit(algorithm, 50, 3600 * kSecond);
    const RateLimit minute = Limit(algorithm, 100, 60 * kSecond);
    RateState state;
    EXPECT_TRUE(Ask(hour, &state, kNow, 80).allowed);
    EXPECT_FALSE(Ask(lower, &state, kNow, 1).allowed);
    EXPECT_EQ(Ask(lower, &state, kNow, 1).remaining, 0);
    EXPECT_EQ(Ask(hour, &state, kNow, 0).remaining, 20);
    // A refusal under the shorter window also shortens the old one, so that it ends.
    EXPECT_LE(Ask(minute, &state, kNow, 21).retry, 2 * 60 * kSecond);
    EXPECT_EQ(Ask(minute, &state, kNow + 120 * kSecond, 0).remaining, 100);
  }
}

TEST(RateLimit, AClockThatStepsBackOpensNoSecondWindow) {
  for (auto algorithm :
       {RateAlgorithm::kFixedWindow, RateAlgorithm::kFixedWindowFirstHit, RateAlgorithm::kSlidingWindow}) {
    const RateLimit limit = Limit(algorithm, 3, 60 * kSecond);
    const int64_t start = kNow - kNow % (60 * kSecond);
    RateState state;
    EXPECT_TRUE(Ask(limit, &state, start, 3).allowed);
    const RateDecision before = Ask(limit, &state, start - 2 * kSecond, 1);
    EXPECT_FALSE(before.allowed);
    EXPECT_GE(before.retry, 62 * kSecond);
    EXPECT_FALSE(Ask(limit, &state, start + 59 * kSecond, 1).allowed);
  }
}

// Otherwise a process that read the clock a little earlier than another would refund what the other has used.
TEST(RateLimit, ARefusalWithAClockSlightlyBehindGivesNothingBack) {
  const RateLimit limit = Limit(RateAlgorithm::kGcra, 1000, kSecond, 500);
  RateState state;
  EXPECT_TRUE(Ask(limit, &state, kNow, 500).allowed);
  const RateDecision behind = Ask(limit, &state, kNow - 900 * kSecond / 1000, 1);
  EXPECT_FALSE(behind.allowed || behind.store);
  EXPECT_EQ(behind.remaining, 0);
  EXPECT_EQ(behind.retry, 901 * kSecond / 1000);
  EXPECT_EQ(Ask(limit, &state, kNow, 0).remaining, 0);
}

TEST(RateLimit, AClockThatRanAheadIsForgivenAfterOneRefusal) {
  const int64_t day = 86400 * kSecond;
  for (auto algorithm : {RateAlgorithm::kGcra, RateAlgorithm::kFixedWindow,
                         RateAlgorithm::kFixedWindowFirstHit, RateAlgorithm::kSlidingWindow}) {
    const RateLimit limit = Limit(algorithm, 3, 60 * kSecond);
    RateState state;
    EXPECT_TRUE(Ask(limit, &state, kNow + day, 3).allowed);
    EXPECT_FALSE(Ask(limit, &state, kNow, 1).allowed);
    EXPECT_TRUE(Ask(limit, &state, kNow + 121 * kSecond, 1).allowed);
  }
}

TEST(RateLimit, RefundsEndAtFull) {
  // bucket4j, addTokens with capacity 100: (49, +50) 99, (50, +50) 100, (50, 0) 50, (50, +110) 100.
  const RateLimit limit = Limit(RateAlgorithm::kGcra, 100, 100, 100);
  const int64_t cases[][3] = {{49, 50, 99}, {50, 50, 100}, {50, 0, 50}, {50, 110, 100}, {50, INT64_MAX, 100}};
  for (const auto& [level, refund, after] : cases) {
    RateState state;
    Ask(limit, &state, kNow, 100 - level);
    EXPECT_EQ(Refund(limit, &state, kNow, refund), refund > 0);
    EXPECT_EQ(Ask(limit, &state, kNow, 0).remaining, after);
  }
  for (auto algorithm : {RateAlgorithm::kGcra, RateAlgorithm::kFixedWindow,
                         RateAlgorithm::kFixedWindowFirstHit, RateAlgorithm::kSlidingWindow}) {
    const RateLimit window = Limit(algorithm, 10, 60 * kSecond);
    RateState state;
    EXPECT_FALSE(Refund(window, &state, kNow, 5));  // nothing to give back to a fresh key
    Ask(window, &state, kNow, 10);
    EXPECT_TRUE(Refund(window, &state, kNow, 3));
    EXPECT_EQ(Ask(window, &state, kNow, 0).remaining, 3);
    EXPECT_TRUE(Refund(window, &state, kNow, INT64_MAX));
    EXPECT_EQ(Ask(window, &state, kNow, 0).remaining, 10);
  }
}

TEST(RateLimit, HugeCosts) {
  for (auto algorithm : {RateAlgorithm::kGcra, RateAlgorithm::kFixedWindow,
                         RateAlgorithm::kFixedWindowFirstHit, RateAlgorithm::kSlidingWindow}) {
    const RateLimit limit = Limit(algorithm, 10, 60 * kSecond);
    RateState state;
    const RateDecision decision = Ask(limit, &state, kNow, INT64_MAX);
    EXPECT_TRUE(decision.never && !decision.allowed && !decision.store);
    EXPECT_EQ(decision.remaining, 10);
  }
  const RateLimit largest = Limit(RateAlgorithm::kFixedWindow, INT64_MAX, 60 * kSecond);
  RateState state;
  EXPECT_TRUE(Ask(largest, &state, kNow, INT64_MAX).allowed);
  EXPECT_FALSE(Ask(largest, &state, kNow, INT64_MAX).allowed);
}

// Properties that hold for any limit and any requests.
class RateLimitProperties : public ::testing::TestWithParam<RateAlgorithm> {
 protected:
  std::mt19937_64 random_{20240229};
  int64_t Random(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  RateLimit RandomLimit() {
    const int64_t quota = Random(1, 20), period = Random(20, 1000000);
    const bool gcra = GetParam() == RateAlgorithm::kGcra;
    return Limit(GetParam(), quota, period, gcra ? Random(1, 30) : 0);
  }
};

TEST_P(RateLimitProperties, HoldForRandomSequences) {
  for (int round = 0; round < 300; round++) {
    const RateLimit limit = RandomLimit();
    SCOPED_TRACE(std::to_string(limit.quota) + " per " + std::to_string(limit.period) + " burst " +
                 std::to_string(limit.burst));
    RateState state;
    int64_t now = kNow;
    for (int step = 0; step < 300; step++) {
      if (Random(0, 3) > 0) now += Random(0, limit.period / 3);
      const RateState before = state;
      const int64_t remaining = Ask(limit, &state, now, 0).remaining;
      // A look changes nothing.
      ASSERT_EQ(state.time, before.time);
      ASSERT_EQ(state.count, before.count);
      ASSERT_EQ(state.previous, before.previous);
      const int64_t cost = Random(1, limit.most() + 2);
      const RateDecision decision = Ask(limit, &state, now, cost);
      ASSERT_GE(decision.remaining, 0);
      ASSERT_LE(decision.remaining, limit.most());
      ASSERT_EQ(decision.allowed, cost <= remaining);
      ASSERT_EQ(decision.never, cost > limit.most());
      ASSERT_EQ(decision.remaining, decision.allowed ? remaining - cost : remaining);
      // All of it remains after reset, and the state may be forgotten then.
      RateState later = state;
      ASSERT_EQ(Ask(limit, &later, now + decision.reset, 0).remaining, limit.most());
      if (decision.reset > 0) {
        ASSERT_LE(ForgetAt(limit, state), now + decision.reset);
      }
      if (decision.allowed) continue;
      // A refusal changes nothing.
      ASSERT_EQ(state.time, before.time);
      ASSERT_EQ(state.count, before.count);
      if (decision.never) continue;
      // After the wait the same request passes; one tick earlier it does not.
      ASSERT_GE(decision.retry, 1);
      later = state;
      ASSERT_FALSE(Ask(limit, &later, now + decision.retry - 1, cost).allowed);
      later = state;
      ASSERT_TRUE(Ask(limit, &later, now + decision.retry, cost).allowed);
    }
  }
}

// In any span of time t never more than burst + t * rate is admitted; the windows admit never more than their
// quota per window, and so 2 * quota in a span as long as one. Requests come as fast as they can.
TEST_P(RateLimitProperties, NeverAdmitMoreThanTheLimit) {
  for (int round = 0; round < 100; round++) {
    const RateLimit limit = RandomLimit();
    RateState state;
    std::vector<std::pair<int64_t, int64_t>> admitted;  // time, cost
    int64_t now = kNow + Random(0, limit.period);
    for (int step = 0; step < 2000; step++) {
      const int64_t cost = Random(1, std::min<int64_t>(limit.most(), 3));
      const RateDecision decision = Ask(limit, &state, now, cost);
      if (decision.allowed)
        admitted.emplace_back(now, cost);
      else if (Random(0, 1) == 0)
        now += decision.retry;
      else
        now += Random(0, limit.period);
    }
    for (size_t from = 0; from < admitted.size(); from += 7) {
      int64_t sum = 0;
      for (size_t to = from; to < admitted.size() && to < from + 200; to++) {
        sum += admitted[to].second;
        const int64_t span = admitted[to].first - admitted[from].first;
        if (GetParam() == RateAlgorithm::kGcra) {
          ASSERT_LE(sum, limit.burst + span / limit.interval);
        } else {
          ASSERT_LE(sum, limit.quota * (span / limit.period + 2));
        }
      }
    }
  }
}

// The sliding counter estimates: at no time it admits more than an exact log of two windows could hold, and
// it never refuses when the last two windows together are below the quota.
TEST(SlidingWindow, StaysWithinOneWindowOfTheExactLog) {
  std::mt19937_64 random(7);
  const RateLimit limit = Limit(RateAlgorithm::kSlidingWindow, 50, 1000);
  RateState state;
  std::deque<int64_t> log;
  int64_t now = kNow;
  for (int step = 0; step < 100000; step++) {
    now += static_cast<int64_t>(random() % 40);
    while (!log.empty() && log.front() <= now - 2 * limit.period) log.pop_front();
    const bool allowed = Ask(limit, &state, now, 1).allowed;
    if (static_cast<int64_t>(log.size()) < limit.quota) {
      ASSERT_TRUE(allowed);
    }
    if (allowed) log.push_back(now);
    ASSERT_LE(static_cast<int64_t>(log.size()), 3 * limit.quota);
  }
}

// Counts that are as large as can be, as an import or a quota may bring them, do not wrap around.
TEST(SlidingWindow, LargeCountsDoNotOverflow) {
  const RateLimit limit = Limit(RateAlgorithm::kSlidingWindow, INT64_MAX, 1000);
  RateState state{kNow - kNow % 1000 + 1000, INT64_MAX - 1, INT64_MAX - 1};
  const RateDecision decision = Ask(limit, &state, kNow, 1);
  EXPECT_FALSE(decision.allowed);
  EXPECT_EQ(decision.remaining, 0);
}

INSTANTIATE_TEST_SUITE_P(Algorithms, RateLimitProperties,
                         ::testing::Values(RateAlgorithm::kGcra, RateAlgorithm::kFixedWindow,
                                           RateAlgorithm::kFixedWindowFirstHit,
                                           RateAlgorithm::kSlidingWindow));

}  // namespace
}  // namespace prm
