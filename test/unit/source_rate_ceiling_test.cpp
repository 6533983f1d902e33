#include "source/rate_ceiling.h"

#include <gtest/gtest.h>

#include <chrono>

#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(RateCeilingTest, AsksForTheTimeThatWhatWasTakenCosts) {
  RateCeiling rate(1000);
  EXPECT_EQ(rate.WaitMs(), 0);
  rate.Take(500);
  EXPECT_GT(rate.WaitMs(), 400);
  EXPECT_LE(rate.WaitMs(), 500);
  rate.Take(1000);
  EXPECT_GT(rate.WaitMs(), 1400);
  EXPECT_LE(rate.WaitMs(), 1500);
}

TEST(RateCeilingTest, NoneIsNoLimit) {
  RateCeiling rate(0);
  rate.Take(1000000000);
  EXPECT_EQ(rate.WaitMs(), 0);
}

class RateOfScanTest : public test::ScanFixture {};

TEST_F(RateOfScanTest, ReadsEverythingNoFasterThanTheCeiling) {
  Populate(1000);
  client_.Command({"SELECT", "5"});
  Populate(500);
  options_.databases = {0, 5};
  options_.scan_count = 50;
  options_.max_rate = 2000;
  const auto connection = Connect();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(ReadAll(*Open(*connection)).size(), 1500U);
  // The last page is not waited for. COUNT is a hint: a page may have a few more.
  EXPECT_GT(SecondsSince(start), (1500 - 80) / 2000.0);
  EXPECT_LT(SecondsSince(start), 5);
}

class CountingWaiter : public test::PollWaiter {
 public:
  int Wait(redis::WaitSocket* sockets, size_t count, long timeout_ms) override {
    if (count == 0) ++pauses;
    if (pauses > 3) throw std::runtime_error("interrupted");
    return PollWaiter::Wait(sockets, count, timeout_ms);
  }
  int pauses = 0;
};

TEST_F(RateOfScanTest, AnInterruptEndsThePause) {
  Populate(1000);
  options_.scan_count = 10;
  options_.max_rate = 100;
  CountingWaiter waiter;
  const auto connection = Connect(waiter);
  EXPECT_THROW(ReadAll(*Open(*connection)), std::runtime_error);
  EXPECT_GT(waiter.pauses, 3);
}

}  // namespace
}  // namespace prm::source
