#include "stream/link_time.h"

#include <gtest/gtest.h>

#include <string>

namespace prm::stream {
namespace {

using namespace source;

std::string TextOf(const TimeSpan& time) {
  return std::to_string(time.after_ms) + ".." + std::to_string(time.until_ms);
}

TEST(LinkTime, WhatComesAtOnceWasRunJustBefore) {
  LinkTime time;
  EXPECT_EQ(TextOf(time.Read(0, 10, false, 5)), "5..5");
}

TEST(LinkTime, WhatTheServerHadBeforeComesLate) {
  LinkTime time;
  time.Connect(100, 1000, 2000);
  EXPECT_EQ(TextOf(time.Read(0, 50, true, 2001)), "1000..2001");  // the rest of it may be on its way
  EXPECT_EQ(TextOf(time.Read(50, 120, false, 2002)), "1000..2002");
  EXPECT_EQ(TextOf(time.Read(120, 140, false, 2003)), "2000..2003");  // while there was still more to read
  EXPECT_EQ(TextOf(time.Read(140, 150, true, 2004)), "2000..2004");
  EXPECT_EQ(TextOf(time.Read(150, 160, false, 2005)), "2005..2005");
}

}  // namespace
}  // namespace prm::stream
