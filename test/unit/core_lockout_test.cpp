#include "core/lockout.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>

namespace prm {
namespace {

constexpr int64_t kSecond = 1000000;
constexpr int64_t kMinute = 60 * kSecond;
constexpr int64_t kHour = 60 * kMinute;
constexpr int64_t kStart = 800000000 * kSecond;

LockoutRule Rule(int32_t failures, CoolOffMode mode = CoolOffMode::kFixed) {
  LockoutRule rule;
  rule.mode = mode;
  rule.window = 15 * kMinute;
  rule.pending_timeout = kMinute;
  rule.tiers = {{failures, kHour}};
  return rule;
}

// One key, used as the server uses it.
struct Login {
  LockoutRule rule;
  LockoutState state{};

  // Returns the reservation, or nothing if the attempt is refused.
  std::optional<int64_t> Check(int64_t now) {
    Advance(rule, now, &state);
    LockoutStatus status = StatusOf(rule, state);
    if (status.locked) Refuse(rule, &state);
    if (status.room == 0) return std::nullopt;
    Reserve(&state);
    return state.clock;
  }
  bool Result(int64_t now, std::optional<int64_t> reserved_at, bool success, bool reset = true) {
    Advance(rule, now, &state);
    return Settle(rule, reserved_at, success, reset, &state);
  }
  // Makes a whole attempt, which fails. Returns whether it was let in.
  bool Fail(int64_t now) {
    std::optional<int64_t> reserved_at = Check(now);
    if (reserved_at) Result(now, reserved_at, false);
    return reserved_at.has_value();
  }
  bool Locked(int64_t now) {
    Advance(rule, now, &state);
    return StatusOf(rule, state).locked;
  }
  int64_t Until() { return StatusOf(rule, state).until; }
};

TEST(Lockout, TheThresholdLocks) {
  Login login{Rule(3)};
  EXPECT_TRUE(login.Fail(kStart));
  EXPECT_TRUE(login.Fail(kStart + kSecond));
  EXPECT_FALSE(login.Locked(kStart + 2 * kSecond));
  std::optional<int64_t> third = login.Check(kStart + 2 * kSecond);
  ASSERT_TRUE(third);
  EXPECT_TRUE(login.Result(kStart + 2 * kSecond, third, false)) << "the result says that a lock began";
  EXPECT_TRUE(login.Locked(kStart + 2 * kSecond));
  EXPECT_EQ(login.Until(), kStart + 2 * kSecond + kHour);
  EXPECT_FALSE(login.Fail(kStart + kMinute));
  EXPECT_EQ(login.Until(), kStart + 2 * kSecond + kHour) << "an attempt during the lock changes nothing";
  EXPECT_TRUE(login.Locked(kStart + 2 * kSecond + kHour - 1));
  EXPECT_FALSE(login.Locked(kStart + 2 * kSecond + kHour)) << "waiting until its end is enough";
  EXPECT_EQ(login.state.failures, 0) << "afterwards counting begins anew";
}

TEST(Lockout, FixedWindowBeginsWithTheFirstFailure) {
  Login login{Rule(3)};
  login.Fail(kStart);
  login.Fail(kStart + 14 * kMinute);
  EXPECT_EQ(login.state.failures, 2);
  login.Fail(kStart + 15 * kMinute);
  EXPECT_EQ(login.state.failures, 1);
}

TEST(Lockout, InactivityWindowBeginsWithTheLastFailure) {
  Login login{Rule(3, CoolOffMode::kInactivity)};
  login.Fail(kStart);
  login.Fail(kStart + 14 * kMinute);
  EXPECT_FALSE(login.Locked(kStart + 28 * kMinute));
  EXPECT_EQ(login.state.failures, 2);
  login.Fail(kStart + 28 * kMinute);
  EXPECT_TRUE(login.Locked(kStart + 28 * kMinute));
  Login calm{Rule(3, CoolOffMode::kInactivity)};
  calm.Fail(kStart);
  calm.Fail(kStart + 14 * kMinute);
  calm.Fail(kStart + 29 * kMinute);
  EXPECT_EQ(calm.state.failures, 1);
}

TEST(Lockout, RollingWindowForgetsEachFailureByItself) {
  Login login{Rule(3, CoolOffMode::kRolling)};
  const int64_t start = kStart / (15 * kMinute) * (15 * kMinute);  // steps are minutes then
  login.Fail(start);
  login.Fail(start + 10 * kMinute);
  login.Fail(start + 12 * kMinute);
  EXPECT_TRUE(login.Locked(start + 12 * kMinute));
  EXPECT_EQ(login.Until(), start + 16 * kMinute) << "the end of the first failure's step, one window later";
  EXPECT_TRUE(login.Locked(start + 15 * kMinute));
  EXPECT_FALSE(login.Locked(start + 16 * kMinute));
  EXPECT_EQ(login.state.failures, 2);
  EXPECT_TRUE(login.Fail(start + 17 * kMinute));
  EXPECT_TRUE(login.Locked(start + 17 * kMinute));
  EXPECT_EQ(login.Until(), start + 26 * kMinute);
  WindowCount count = CountWithin(login.rule, login.state, 5 * kMinute, 2);
  EXPECT_EQ(count.failures, 2);
  EXPECT_EQ(count.until, start + 18 * kMinute);
  count = CountWithin(login.rule, login.state, 4 * kMinute, 2);
  EXPECT_EQ(count.failures, 1);
  EXPECT_EQ(count.until, 0);
  EXPECT_FALSE(login.Locked(start + 33 * kMinute));
  EXPECT_EQ(login.state.failures, 0);
}

// {3 -> 15 min, 6 -> 2 h, 10 -> 24 h}, as django-axes has it.
TEST(Lockout, Tiers) {
  Login login{Rule(3)};
  login.rule.tiers = {{3, 15 * kMinute}, {6, 2 * kHour}, {10, 24 * kHour}};
  int64_t now = kStart;
  const int64_t cool_offs[] = {0,         0,         15 * kMinute, 15 * kMinute, 15 * kMinute, 2 * kHour,
                               2 * kHour, 2 * kHour, 2 * kHour,    24 * kHour,   24 * kHour};
  int failures = 0;
  for (int64_t cool_off : cool_offs) {
    ASSERT_TRUE(login.Fail(now)) << failures;
    EXPECT_EQ(login.state.failures, ++failures);
    EXPECT_EQ(login.Locked(now), cool_off > 0) << failures;
    if (cool_off > 0) {
      EXPECT_EQ(login.Until(), now + cool_off) << failures;
    }
    now += cool_off;
  }
  EXPECT_EQ(StatusOf(login.rule, login.state).room, 0);
  Advance(login.rule, now, &login.state);
  EXPECT_EQ(StatusOf(login.rule, login.state).room, 1) << "one at a time between two locks";
  Advance(login.rule, now + 15 * kMinute - 1, &login.state);
  EXPECT_EQ(login.state.failures, 11);
  Advance(login.rule, now + 15 * kMinute, &login.state);
  EXPECT_EQ(login.state.failures, 0) << "forgotten one window after the last lock";
  login.state.failures = 100;
  login.state.last = login.state.clock;
  EXPECT_EQ(login.Until(), login.state.clock + 24 * kHour);
}

// Three failures, the last at 10:05, one hour: a try at 10:50 moves the end from 11:05 to 11:50 if asked to.
TEST(Lockout, ExtendOnAttempt) {
  for (bool extend : {false, true}) {
    for (CoolOffMode mode : {CoolOffMode::kFixed, CoolOffMode::kInactivity}) {
      Login login{Rule(3, mode)};
      login.rule.extend_on_attempt = extend;
      for (int minute : {3, 4, 5}) login.Fail(kStart + minute * kMinute);
      EXPECT_EQ(login.Until(), kStart + 65 * kMinute);
      EXPECT_FALSE(login.Check(kStart + 50 * kMinute));
      EXPECT_EQ(login.Until(), kStart + (extend ? 110 : 65) * kMinute);
      // A result without a check has the same effect.
      EXPECT_FALSE(login.Result(kStart + 55 * kMinute, std::nullopt, false));
      EXPECT_EQ(login.Until(), kStart + (extend ? 115 : 65) * kMinute);
    }
  }
  Login rolling{Rule(2, CoolOffMode::kRolling)};
  rolling.rule.extend_on_attempt = true;
  rolling.Fail(kStart);
  rolling.Fail(kStart);
  int64_t until = rolling.Until();
  EXPECT_FALSE(rolling.Check(kStart + 5 * kMinute));
  EXPECT_EQ(rolling.Until(), until);
  EXPECT_FALSE(rolling.Check(kStart + 5 * kMinute));
  EXPECT_EQ(rolling.Until(), until + 5 * kMinute);
}

TEST(Lockout, ReservedAttemptsTakeTheRoomOfFailures) {
  Login login{Rule(3)};
  std::vector<int64_t> reserved;
  for (int i = 0; i < 3; ++i) reserved.push_back(login.Check(kStart + i).value());
  EXPECT_FALSE(login.Check(kStart + 3));
  EXPECT_FALSE(StatusOf(login.rule, login.state).locked) << "pending is not locked";
  EXPECT_EQ(login.Until(), kStart + 2 + kMinute);
  login.Result(kStart + 4, reserved[0], true, false);
  EXPECT_TRUE(login.Check(kStart + 5));
  EXPECT_FALSE(login.Check(kStart + 6));
}

TEST(Lockout, AttemptsWithoutAResultBecomeFailures) {
  Login login{Rule(2)};
  int64_t first = login.Check(kStart).value();
  int64_t second = login.Check(kStart + kSecond).value();
  EXPECT_EQ(Advance(login.rule, kStart + kSecond + kMinute - 1, &login.state), 0);
  EXPECT_EQ(Advance(login.rule, kStart + kSecond + kMinute, &login.state), 2);
  EXPECT_TRUE(StatusOf(login.rule, login.state).locked);
  EXPECT_EQ(login.Until(), kStart + kSecond + kHour) << "from the last check on";
  // Results that come too late count nothing again and open nothing.
  EXPECT_FALSE(login.Result(kStart + 2 * kMinute, first, false));
  EXPECT_FALSE(login.Result(kStart + 2 * kMinute, second, true));
  EXPECT_EQ(login.state.failures, 2);
  EXPECT_TRUE(login.Locked(kStart + kSecond + kHour - 1));

  Login one{Rule(3)};
  int64_t late = one.Check(kStart).value();
  EXPECT_FALSE(one.Result(kStart + 2 * kMinute, late, false));
  EXPECT_EQ(one.state.failures, 1) << "counted once";
}

TEST(Lockout, ALostReservationStillCounts) {
  Login login{Rule(2)};
  int64_t reserved = login.Check(kStart).value();
  login.state = LockoutState{};
  login.Result(kStart + kSecond, reserved, false);
  EXPECT_EQ(login.state.failures, 1);
  // A result that comes twice is counted twice rather than not at all.
  login.Result(kStart + kSecond, reserved, false);
  EXPECT_TRUE(login.Locked(kStart + kSecond));
}

TEST(Lockout, SuccessResetsWhatTheRuleSays) {
  Login login{Rule(3)};
  login.Fail(kStart);
  login.Fail(kStart);
  login.Result(kStart, login.Check(kStart), true, false);
  EXPECT_EQ(login.state.failures, 2);
  login.Result(kStart, login.Check(kStart), true, true);
  EXPECT_EQ(login.state.failures, 0);
  // Attempts in flight stay reserved.
  std::optional<int64_t> slow = login.Check(kStart);
  login.Result(kStart, login.Check(kStart), true, true);
  EXPECT_EQ(login.state.reserved, 1);
  login.Result(kStart, slow, false);
  EXPECT_EQ(login.state.failures, 1);
  // A success opens no lock.
  login.Fail(kStart);
  login.Fail(kStart);
  login.Result(kStart, std::nullopt, true, true);
  EXPECT_TRUE(login.Locked(kStart));
}

TEST(Lockout, ChangedRulesApplyToWhatWasCounted) {
  Login login{Rule(10)};
  for (int i = 0; i < 4; ++i) login.Fail(kStart + i);
  login.rule.tiers = {{3, kHour}};
  EXPECT_TRUE(login.Locked(kStart + kMinute));
  login.rule.tiers = {{3, 2 * kMinute}};
  EXPECT_FALSE(login.Locked(kStart + 3 * kMinute));
  login = Login{Rule(3)};
  for (int i = 0; i < 3; ++i) login.Fail(kStart);
  login.rule.tiers = {{5, kHour}};
  EXPECT_FALSE(login.Locked(kStart));
  EXPECT_EQ(StatusOf(login.rule, login.state).room, 2);
  login.rule.mode = CoolOffMode::kRolling;
  Advance(login.rule, kStart, &login.state);
  EXPECT_EQ(login.state.failures, 3);
}

TEST(Lockout, ASmallStepOfTheClockIsIgnored) {
  Login login{Rule(2)};
  login.Fail(kStart + kSecond);
  EXPECT_TRUE(login.Fail(kStart));
  EXPECT_TRUE(login.Locked(kStart));
  EXPECT_EQ(login.Until(), kStart + kSecond + kHour);
}

// A lock from a time when the clock was a day ahead lasts one cool-off, or one window, from now.
TEST(Lockout, AClockThatWasAheadLocksNobodyForLonger) {
  for (CoolOffMode mode : {CoolOffMode::kFixed, CoolOffMode::kInactivity, CoolOffMode::kRolling}) {
    SCOPED_TRACE(static_cast<int>(mode));
    const bool rolling = mode == CoolOffMode::kRolling;
    const int64_t least = rolling ? 14 * kMinute : kHour, most = rolling ? 16 * kMinute : kHour;
    Login login{Rule(2, mode)};
    login.Fail(kStart + 24 * kHour - kMinute);
    login.Fail(kStart + 24 * kHour);
    EXPECT_TRUE(login.Locked(kStart));
    EXPECT_GE(login.Until(), kStart + least);
    EXPECT_LE(login.Until(), kStart + most);
    EXPECT_LE(ForgottenAt(login.rule, login.state), kStart + most);
    EXPECT_FALSE(login.Locked(kStart + most));

    // The one attempt in flight still counts, and its result settles it.
    Login pending{Rule(2, mode)};
    const auto reserved_at = pending.Check(kStart + 24 * kHour);
    Advance(pending.rule, kStart, &pending.state);
    EXPECT_EQ(StatusOf(pending.rule, pending.state).room, 1);
    pending.Result(kStart + kSecond, reserved_at, false);
    EXPECT_EQ(pending.state.failures, 1);
    EXPECT_EQ(pending.state.reserved, 0);
  }
}

TEST(Lockout, ImportedFailuresGoOnWhereTheyStood) {
  for (CoolOffMode mode : {CoolOffMode::kFixed, CoolOffMode::kInactivity, CoolOffMode::kRolling}) {
    Login login{Rule(5, mode)};
    Advance(login.rule, kStart, &login.state);
    ImportFailures(login.rule, 4, kStart - 10 * kMinute, &login.state);
    EXPECT_EQ(login.state.failures, 4);
    ImportFailures(login.rule, 4, kStart - 10 * kMinute, &login.state);
    EXPECT_EQ(login.state.failures, 4) << "twice is once";
    EXPECT_TRUE(login.Fail(kStart));
    EXPECT_TRUE(login.Locked(kStart));
    EXPECT_EQ(login.state.failures, 5);

    Login locked{Rule(5, mode)};
    Advance(locked.rule, kStart, &locked.state);
    ImportFailures(locked.rule, 9, kStart - 10 * kMinute, &locked.state);
    EXPECT_TRUE(locked.Locked(kStart));
    if (mode != CoolOffMode::kRolling) {
      EXPECT_EQ(locked.Until(), kStart + 50 * kMinute);
    }

    Login old{Rule(5, mode)};
    Advance(old.rule, kStart, &old.state);
    ImportFailures(old.rule, 9, kStart - 2 * kHour, &old.state);
    EXPECT_EQ(old.state.failures, 0);
  }
}

TEST(Lockout, AnImportedLockMayLastForEver) {
  constexpr int64_t kForEver = 100 * 365 * 24 * kHour;
  for (CoolOffMode mode : {CoolOffMode::kFixed, CoolOffMode::kInactivity, CoolOffMode::kRolling}) {
    SCOPED_TRACE(static_cast<int>(mode));
    Login login{Rule(5, mode)};
    login.rule.extend_on_attempt = true;
    login.Fail(kStart);
    login.Fail(kStart);
    ImportFailures(login.rule, 7, kStart + kForEver, &login.state);
    EXPECT_EQ(login.state.failures, 7);
    ImportFailures(login.rule, 7, kStart + kForEver, &login.state);
    EXPECT_EQ(login.state.failures, 7) << "twice is once";
    for (int64_t now : {kStart, kStart + kForEver / 2, kStart + kForEver}) {
      EXPECT_FALSE(login.Fail(now));
      EXPECT_TRUE(login.Locked(now));
    }
  }
}

// Random checks, results and pauses. Not more failures than the threshold are let in within a window that
// begins when nothing is known, and nothing is forgotten before ForgottenAt says so.
TEST(Lockout, RandomSequences) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    CoolOffMode mode = static_cast<CoolOffMode>(random() % 3);
    Login login{Rule(1 + static_cast<int>(random() % 6), mode)};
    login.rule.window = static_cast<int64_t>(1 + random() % 1000) * kSecond;
    login.rule.tiers[0].cool_off = static_cast<int64_t>(1 + random() % 1000) * kSecond;
    login.rule.extend_on_attempt = random() % 2;
    if (mode != CoolOffMode::kRolling && random() % 2)
      login.rule.tiers.push_back({login.rule.threshold() + 2, kHour});
    std::deque<int64_t> in_flight;
    std::deque<int64_t> admitted;
    int64_t now = kStart;
    for (int step = 0; step < 60; ++step) {
      switch (random() % 4) {
        case 0:
          if (!in_flight.empty()) {
            login.Result(now, in_flight.front(), false);
            in_flight.pop_front();
          }
          break;
        case 1:
          now += static_cast<int64_t>(random() % 100) * kSecond;
          break;
        default:
          if (std::optional<int64_t> reserved = login.Check(now)) {
            in_flight.push_back(*reserved);
            admitted.push_back(now);
          }
      }
      ASSERT_GE(login.state.failures, 0);
      ASSERT_GE(login.state.reserved, 0);
      LockoutStatus status = StatusOf(login.rule, login.state);
      ASSERT_GE(status.room, 0);
      ASSERT_LE(status.room, login.rule.threshold());
      if (status.room == 0) {
        ASSERT_GT(status.until, login.state.clock);
      }
      if (login.state.failures + login.state.reserved > 0) {
        ASSERT_GT(ForgottenAt(login.rule, login.state), login.state.clock);
        LockoutState later = login.state;
        Advance(login.rule, ForgottenAt(login.rule, login.state), &later);
        ASSERT_EQ(later.failures + later.reserved, 0);
      }
      if (mode == CoolOffMode::kRolling) {
        while (!admitted.empty() && admitted.front() <= now - login.rule.window) admitted.pop_front();
        ASSERT_LE(admitted.size(), static_cast<size_t>(login.rule.threshold()));
      }
    }
  }
}

}  // namespace
}  // namespace prm
