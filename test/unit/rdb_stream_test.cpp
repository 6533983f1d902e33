// Streams put together by hand: the layouts of other Redis versions, and bytes that contradict each other.
// rdb_live_test.cpp compares streams that Redis 7.0 writes with Redis itself.
#include "rdb/stream.h"

#include <gtest/gtest.h>

#include <string>

#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"

namespace prm::rdb {
namespace {

using std::string_literals::operator""s;
using test::Rows;

std::string Int7(int value) { return {static_cast<char>(value), '\x01'}; }

std::string Str6(const std::string& text) {
  return static_cast<char>(0x80 | text.size()) + text + static_cast<char>(text.size() + 1);
}

// Concatenated listpack elements as an RDB string; the number of elements is left unknown.
std::string Listpack(const std::string& elements) {
  const char size = static_cast<char>(elements.size() + 7);
  return std::string{size, size, 0, 0, 0, '\xff', '\xff'} + elements + "\xff";
}

std::string RawId(char ms, char seq) { return std::string(7, '\0') + ms + std::string(7, '\0') + seq; }

std::string LittleEndian(char low) { return low + std::string(7, '\0'); }

const std::string kMaster = Int7(2) + Int7(1) + Int7(1) + Str6("f") + Int7(0);
// 10-0 {f: a}, 11-1 deleted, 13-0 {g: 5}.
const std::string kEntries = Int7(2) + Int7(0) + Int7(0) + Str6("a") + Int7(4) +  // same fields
                             Int7(3) + Int7(1) + Int7(1) + Str6("b") + Int7(4) +  // the same, deleted
                             Int7(0) + Int7(3) + Int7(0) + Int7(1) + Str6("g") + Int7(5) + Int7(6);
const std::string kOneListpack = "\x01\x10"s + RawId(10, 0) + Listpack(kMaster + kEntries);
const std::string kInfo5 = "\x02\x0d\x00"s;                   // length 2, last id 13-0
const std::string kInfo7 = kInfo5 + "\x0a\x00\x0b\x01\x03"s;  // first 10-0, deleted 11-1, 3 added
const std::string kPending = "\x01"s + RawId(10, 0) + LittleEndian(99) + "\x04";

std::string Group5(const std::string& pending, const std::string& consumers) {
  return "\x01\x01g\x0a\x00"s + pending + consumers;
}

std::string Group7(const std::string& pending, const std::string& consumers) {
  return "\x01\x01g\x0a\x00\x01"s + pending + consumers;
}

const std::string kConsumer = "\x01\x01"s + "c" + LittleEndian(77) + "\x01" + RawId(10, 0);

Rows Decode(const std::string& body) {
  const Result<Rows> rows = test::DecodedRows(test::Framed(body));
  return rows.ok() ? rows.value() : Rows{{"error", rows.error().message}};
}

bool Fails(const std::string& body, const std::string& problem) {
  const Rows rows = Decode(body);
  const bool fails = rows[0][0] == "error" && rows[0][1].find(problem) != std::string::npos;
  if (!fails) ADD_FAILURE() << testing::PrintToString(rows);
  return fails;
}

const Rows kExpectedEntries = {{"entry", "10-0", "f", "a"}, {"entry", "13-0", "g", "5"}};

Rows ExpectedWith(const Rows& more) {
  Rows rows = kExpectedEntries;
  rows.insert(rows.end(), more.begin(), more.end());
  return rows;
}

TEST(Stream, LayoutOfRedis5) {
  EXPECT_EQ(Decode("\x0f"s + kOneListpack + kInfo5 + Group5(kPending, kConsumer)),
            ExpectedWith({{"info", "2", "13-0", "10-0", "0-0", "2"},
                          {"group", "g", "10-0", "-1"},
                          {"consumer", "g", "c", "77", "1"},
                          {"pending", "g", "c", "10-0", "99", "4"}}));
}

TEST(Stream, LayoutOfRedis70) {
  EXPECT_EQ(Decode("\x13"s + kOneListpack + kInfo7 + Group7(kPending, kConsumer)),
            ExpectedWith({{"info", "2", "13-0", "10-0", "11-1", "3"},
                          {"group", "g", "10-0", "1"},
                          {"consumer", "g", "c", "77", "1"},
                          {"pending", "g", "c", "10-0", "99", "4"}}));
}

TEST(Stream, LayoutOfRedis72) {
  const std::string consumer =
      "\x01\x01"s + "c" + LittleEndian(77) + LittleEndian(66) + "\x01" + RawId(10, 0);
  EXPECT_EQ(Decode("\x15"s + kOneListpack + kInfo7 + Group7(kPending, consumer)),
            ExpectedWith({{"info", "2", "13-0", "10-0", "11-1", "3"},
                          {"group", "g", "10-0", "1"},
                          {"consumer", "g", "c", "77", "1"},
                          {"pending", "g", "c", "10-0", "99", "4"}}));
}

std::string WithEntries(const std::string& master, const std::string& entries) {
  return "\x13\x01\x10"s + RawId(10, 0) + Listpack(master + entries) + kInfo7 + "\x00"s;
}

TEST(Stream, RefusesContradictoryEntries) {
  EXPECT_EQ(Decode(WithEntries(kMaster, kEntries))[0][0], "entry");
  const std::string one = Int7(1) + Int7(0) + Int7(1) + Str6("f") + Int7(0);
  EXPECT_TRUE(Fails(WithEntries(Int7(3) + Int7(0) + Int7(1) + Str6("f") + Int7(0), kEntries),
                    "does not count the entries"));
  EXPECT_TRUE(Fails(WithEntries(Int7(2) + Int7(2) + Int7(1) + Str6("f") + Int7(0), kEntries),
                    "does not count the entries"));
  EXPECT_TRUE(
      Fails(WithEntries(Int7(2) + Int7(1) + Int7(1) + Str6("f") + Int7(1), kEntries), "does not end with 0"));
  EXPECT_TRUE(
      Fails(WithEntries(one, Int7(2) + Int7(0) + Int7(0) + Str6("a") + Int7(5)), "wrong number of elements"));
  EXPECT_TRUE(Fails(WithEntries(one, Int7(0) + Int7(0) + Int7(0) + Int7(1) + Str6("a") + Str6("b") + Int7(5)),
                    "wrong number of elements"));
  EXPECT_TRUE(Fails(WithEntries(one, Str6("x")), "a string is found where an integer is expected"));
  EXPECT_TRUE(Fails(WithEntries(one, Int7(2) + Int7(0)), "ends where an element is expected"));
  // Numbers of fields: -1 (13 bits), the least and the greatest of 64 bits.
  const std::string minus_one = "\xdf\xff\x02"s;
  const std::string least = "\xf4\x00\x00\x00\x00\x00\x00\x00\x80\x09"s;
  const std::string greatest = "\xf4\xff\xff\xff\xff\xff\xff\xff\x7f\x09"s;
  for (const std::string& count : {minus_one, least, greatest}) {
    EXPECT_TRUE(Fails(WithEntries(one, Int7(0) + Int7(0) + Int7(0) + count + Str6("a")),
                      "impossible number of fields"));
  }
  EXPECT_TRUE(Fails(WithEntries(Int7(1) + Int7(0) + least + Str6("f"), ""), "impossible number of fields"));
  EXPECT_TRUE(
      Fails(WithEntries(Int7(1) + Int7(0) + greatest + Str6("f"), ""), "ends where an element is expected"));
  EXPECT_TRUE(
      Fails("\x13\x01\x03"s + "abc" + Listpack(kMaster + kEntries), "a stream id does not have 16 bytes"));
}

std::string WithGroup(const std::string& pending, const std::string& consumers) {
  return "\x13"s + kOneListpack + kInfo7 + Group7(pending, consumers);
}

TEST(Stream, RefusesContradictoryPendingEntries) {
  const std::string first = RawId(10, 0) + LittleEndian(99) + "\x04";
  const std::string second = RawId(13, 0) + LittleEndian(99) + "\x04";
  const std::string two_of_c = "\x01\x01"s + "c" + LittleEndian(77) + "\x02" + RawId(10, 0) + RawId(13, 0);
  EXPECT_EQ(Decode(WithGroup("\x02" + first + second, two_of_c))[0][0], "entry");
  EXPECT_TRUE(Fails(WithGroup("\x02" + second + first, two_of_c), "not in order"));
  EXPECT_TRUE(Fails(WithGroup("\x02" + first + first, two_of_c), "not in order"));
  const std::string earlier = "\x01\x01"s + "c" + LittleEndian(77) + "\x01" + RawId(9, 0);
  EXPECT_TRUE(Fails(WithGroup(kPending, earlier), "for a consumer but not for its group"));
  EXPECT_TRUE(Fails(WithGroup(kPending, two_of_c), "for a consumer but not for its group"));
  EXPECT_TRUE(Fails(WithGroup("\x02" + first + second, kConsumer), "for none of its consumers"));
  const std::string twice = "\x01\x01"s + "c" + LittleEndian(77) + "\x02" + RawId(10, 0) + RawId(10, 0);
  EXPECT_TRUE(Fails(WithGroup(kPending, twice), "pending for two consumers"));
}

}  // namespace
}  // namespace prm::rdb
