#include "core/rate_text.h"

#include <gtest/gtest.h>

namespace prm {
namespace {

constexpr int64_t kSecond = 1000000000;

std::vector<RateText> Parse(const char* text) {
  auto rates = ParseRates(text);
  EXPECT_TRUE(rates.ok()) << text;
  return rates.ok() ? rates.value() : std::vector<RateText>{};
}

TEST(RateText, ReadsNumbersAndUnits) {
  const std::pair<const char*, RateText> cases[] = {
      {"10/s", {10, kSecond}},
      {"1 per second", {1, kSecond}},
      {"1/SECOND", {1, kSecond}},
      {" 1 / Second ", {1, kSecond}},
      {"1 per 3 hour", {1, 10800 * kSecond}},
      {"1/2 day", {1, 172800 * kSecond}},
      {"100 per 15 minutes", {100, 900 * kSecond}},
      {"100per15m", {100, 900 * kSecond}},
      {"5/100ms", {5, kSecond / 10}},
      {"5/2s", {5, 2 * kSecond}},
      {"5 / 3 m", {5, 180 * kSecond}},
      {"5/4h", {5, 14400 * kSecond}},
      {"5/5d", {5, 432000 * kSecond}},
      {"1/week", {1, 7 * 86400 * kSecond}},
      {"1 per month", {1, 30 * 86400 * kSecond}},
      {"1 per year", {1, 360 * 86400 * kSecond}},
      {"24/day", {24, 86400 * kSecond}},
      {"9223372036854775807/s", {INT64_MAX, kSecond}},
  };
  for (const auto& [text, rate] : cases) EXPECT_EQ(Parse(text), std::vector<RateText>{rate}) << text;
}

TEST(RateText, ReadsLists) {
  const std::vector<RateText> two = {{1, 10800 * kSecond}, {1, kSecond}};
  EXPECT_EQ(Parse("1 per 3 hour; 1 per second"), two);
  EXPECT_EQ(Parse("1 per 3 hour,1/s"), two);
}

TEST(RateText, RefusesTheRest) {
  for (const char* text : {"",
                           " ",
                           "meow",
                           "10",
                           "10/",
                           "/s",
                           "10 s",
                           "10/s/m",
                           "10/s burst",
                           "0/s",
                           "-1/s",
                           "1/0s",
                           "1/-1s",
                           "1 per millenium",
                           "1 per yearl; 2 per decade",
                           "1/s;",
                           ";1/s",
                           "1.5/s",
                           "9223372036854775808/s",
                           "1/9223372036854775807 years",
                           "1 pers",
                           "1/ss",
                           "1/mss",
                           "1/secss"}) {
    auto rates = ParseRates(text);
    EXPECT_FALSE(rates.ok()) << text;
    if (!rates.ok()) {
      EXPECT_EQ(rates.error().code, ErrorCode::kInvalidArgument);
    }
  }
}

}  // namespace
}  // namespace prm
