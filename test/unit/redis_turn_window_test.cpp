#include "redis/turn_window.h"

#include <gtest/gtest.h>

namespace prm::redis {
namespace {

TEST(TurnWindow, SendsEverythingThatIsNotDivided) {
  TurnWindow window;
  for (int i = 0; i < 5; ++i) window.Append();
  EXPECT_EQ(window.MaySend(5, 50), 50U);
}

TEST(TurnWindow, SendsATurnForEachThatWasAnswered) {
  TurnWindow window;
  window.Allow(2);
  for (uint64_t turn = 1; turn <= 5; ++turn) {  // of two commands with five bytes each
    window.Append();
    window.Append();
    window.End(10 * turn);
    window.End(10 * turn);
  }
  window.Append();
  EXPECT_EQ(window.MaySend(11, 55), 20U);
  EXPECT_EQ(window.MaySend(10, 55), 20U);  // half of the first
  EXPECT_EQ(window.MaySend(9, 55), 30U);
  EXPECT_EQ(window.MaySend(4, 55), 50U);
  EXPECT_EQ(window.MaySend(3, 55), 55U);  // with the rest, two are under way
  EXPECT_EQ(window.MaySend(0, 55), 55U);
}

TEST(TurnWindow, WhatIsMoreThanAllowedWaitsAgain) {
  TurnWindow window;
  window.Append();
  window.End(10);
  window.Append();
  window.End(20);
  EXPECT_EQ(window.MaySend(2, 20), 10U);
  window.Allow(2);
  EXPECT_EQ(window.MaySend(2, 20), 20U);
  window.Append();
  EXPECT_EQ(window.MaySend(3, 30), 20U);
  EXPECT_EQ(window.MaySend(2, 30), 30U);
}

}  // namespace
}  // namespace prm::redis
