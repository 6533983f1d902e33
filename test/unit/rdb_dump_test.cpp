#include "rdb/dump.h"
#include "rdb/encoder.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"

namespace prm::rdb {
namespace {

using std::string_literals::operator""s;
using test::DecodedRows;
using test::Framed;
using test::Rows;

// The rows of a body with a frame around it; an error becomes a row {"error", message}.
Rows Decode(const std::string& body, unsigned version = 10) {
  const Result<Rows> rows = DecodedRows(Framed(body, version));
  return rows.ok() ? rows.value() : Rows{{"error", rows.error().message}};
}

std::string Message(const std::string& body) {
  const Rows rows = Decode(body);
  return rows.size() == 1 && rows[0][0] == "error" ? rows[0][1] : "no error";
}

Error Failure(const std::string& payload) {
  ValueVisitor ignore;
  const Status status = DecodeDump(payload, ignore);
  EXPECT_FALSE(status.ok());
  return status.ok() ? Error{ErrorCode::kInvalidArgument, "", "", ""} : status.error();
}

TEST(Dump, NamesOfTypes) {
  const std::vector<std::pair<uint8_t, std::string>> types = {
      {0, "string"},  {1, "list"},    {2, "set"},    {3, "zset"},  {4, "hash"},  {5, "zset"},
      {7, "module"},  {9, "hash"},    {10, "list"},  {11, "set"},  {12, "zset"}, {13, "hash"},
      {14, "list"},   {15, "stream"}, {16, "hash"},  {17, "zset"}, {18, "list"}, {19, "stream"},
      {20, "set"},    {21, "stream"}, {22, "hash"},  {23, "hash"}, {24, "hash"}, {25, "hash"},
      {26, "stream"}, {27, "stream"}, {28, "array"}, {29, "hash"}, {30, "hash"}, {31, "hash"},
      {32, "hash"}};
  for (const auto& [number, name] : types) {
    const Result<ValueType> type =
        DumpType(Framed(std::string(1, static_cast<char>(number)), number < 22 ? 10 : 15));
    ASSERT_TRUE(type.ok()) << int{number};
    EXPECT_EQ(TypeName(type.value()), name);
  }
}

TEST(Dump, UnknownTypesAreUnsupported) {
  for (const int number : {6, 8, 26, 27, 127, 255}) {
    const std::string payload = Framed(std::string(1, static_cast<char>(number)) + "\x01\x01x", 12);
    const std::string message = "unsupported value type " + std::to_string(number) + " of RDB version 12";
    EXPECT_EQ(Failure(payload).code, ErrorCode::kUnsupported);
    EXPECT_EQ(Failure(payload).message, message);
    const Result<ValueType> type = DumpType(payload);
    ASSERT_FALSE(type.ok());
    EXPECT_EQ(type.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(type.error().message, message);
  }
}

// Redis and Valkey use one number for different types.
TEST(Dump, NumbersOfValkey) {
  for (const int number : {23, 24, 25}) {
    const std::string payload = Framed(std::string(1, static_cast<char>(number)) + "\x01\x01x", 80);
    EXPECT_EQ(Failure(payload).code, ErrorCode::kUnsupported) << number;
  }
  const std::string triples =
      "\x16\x02\x01"
      "f\x01"
      "a\xff\xff\xff\xff\xff\xff\xff\xff\x01"
      "g\x01"
      "b\xe8\x03\x00\x00\x00\x00\x00\x00"s;
  EXPECT_EQ(Decode(triples, 80), (Rows{{"f", "a"}, {"g", "b", "1000"}}));
  EXPECT_EQ(Decode("\x16\x02\x00\x01"
                   "f\x01"
                   "a\x43\xe8\x01"
                   "g\x01"
                   "b"s,
                   12),
            (Rows{{"f", "a"}, {"g", "b", "1000"}}));
}

TEST(Dump, Versions) {
  for (unsigned version = 1; version <= 15; ++version) {
    EXPECT_EQ(Decode("\x00\x01x"s, version), (Rows{{"x"}})) << version;
  }
  EXPECT_EQ(Decode("\x00\x01x"s, 80), (Rows{{"x"}})) << "Valkey";
  for (const unsigned version : {0u, 16u, 79u, 82u, 266u, 65535u}) {
    const Error error = Failure(Framed("\x00\x01x"s, version));
    EXPECT_EQ(error.code, ErrorCode::kUnsupported);
    EXPECT_EQ(error.message, "unsupported RDB version " + std::to_string(version) + " of a DUMP payload");
    EXPECT_EQ(error.detail, "Versions 1 to 15 of Redis and 80 to 81 of Valkey are read.");
  }
}

TEST(Dump, Checksum) {
  // redis-server 7.0.15 answers this to DUMP after SET k 127.
  const std::string right = "\x00\xc0\x7f\x0a\x00\x0d\xb5\xeb\x31\x52\x54\xc5\x14"s;
  const Result<Rows> rows = DecodedRows(right);
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  EXPECT_EQ(rows.value(), (Rows{{"127"}}));
  for (size_t bit = 0; bit < 8 * right.size(); ++bit) {
    std::string flipped = right;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(DecodedRows(flipped).ok()) << bit;
  }
  std::string wrong = right;
  wrong.back() = static_cast<char>(wrong.back() + 1);
  EXPECT_EQ(Failure(wrong).code, ErrorCode::kCorruptData);
  EXPECT_EQ(Failure(wrong).message,
            "corrupt DUMP payload: the checksum at byte 5 is not that of the bytes before it");
  EXPECT_TRUE(DecodedRows(Framed("\x00\xc0\x7f"s)).ok()) << "a checksum of zero was not computed";
}

// The form of the lengths, and version 6; the checksums are Redis' business, see rdb_live_test.cpp.
TEST(Dump, EncodesStrings) {
  const std::pair<size_t, std::string> forms[] = {{0, "\x00"s},
                                                  {63, "\x3f"s},
                                                  {64, "\x40\x40"s},
                                                  {16383, "\x7f\xff"s},
                                                  {16384, "\x80\x00\x00\x40\x00"s},
                                                  {70000, "\x80\x00\x01\x11\x70"s}};
  for (const auto& [size, length] : forms) {
    const std::string value(size, 'v');
    const std::string payload = EncodeStringDump(value);
    const std::string expected = "\x00"s + length + value + "\x06\x00"s;
    ASSERT_EQ(payload.size(), expected.size() + 8) << size;
    EXPECT_TRUE(payload.substr(0, expected.size()) == expected) << size;
    const Result<Rows> rows = DecodedRows(payload);
    ASSERT_TRUE(rows.ok()) << rows.error().message;
    EXPECT_TRUE(rows.value() == Rows{{value}}) << size;
  }
}

TEST(Dump, TooShort) {
  for (size_t size = 0; size < 11; ++size) {
    const std::string payload(size, '\0');
    EXPECT_EQ(Failure(payload).code, ErrorCode::kCorruptData);
    EXPECT_FALSE(DumpType(payload).ok());
  }
}

TEST(Dump, NothingMayFollowTheValue) {
  EXPECT_EQ(Message("\x00\x01xyz"s), "corrupt value at byte 3: 2 bytes are left after the value");
}

const std::string kEmptyListpack = "\x07\x07\x00\x00\x00\x00\x00\xff"s;

TEST(Dump, EmptyCollectionsAreNoErrors) {
  for (const std::string& body :
       {"\x01\x00"s, "\x02\x00"s, "\x04\x00"s, "\x05\x00"s, "\x12\x00"s,
        "\x0b\x08\x02\x00\x00\x00\x00\x00\x00\x00"s, "\x10"s + kEmptyListpack, "\x11"s + kEmptyListpack,
        "\x14"s + kEmptyListpack, "\x12\x01\x02"s + kEmptyListpack}) {
    EXPECT_EQ(Decode(body), Rows{}) << testing::PrintToString(body);
  }
  EXPECT_EQ(Decode("\x13\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"s),
            (Rows{{"info", "0", "0-0", "0-0", "0-0", "0"}}));
}

TEST(Dump, TypesThatRedis70DoesNotWrite) {
  EXPECT_EQ(Decode("\x01\x02\x01x\xc0\x05"s), (Rows{{"x"}, {"5"}}));
  EXPECT_EQ(Decode("\x14\x0c\x0c\x00\x00\x00\x02\x00\x05\x01\x81q\x02\xff"s), (Rows{{"5"}, {"q"}}));
}

TEST(Dump, CorruptCollections) {
  EXPECT_EQ(Message("\x12\x01\x03\x01x"s), "corrupt value at byte 3: unknown container 3 of a list node");
  EXPECT_EQ(Message("\x10\x09\x09\x00\x00\x00\x01\x00\x05\x01\xff"s),
            "corrupt value at byte 8 of the listpack at byte 1: it ends where an element is expected");
  for (const std::string& score : {"q"s, "1x"s, ""s, " 1"s, "1e999"s}) {
    std::string elements =
        "\x05\x01"s + static_cast<char>(0x80 | score.size()) + score + static_cast<char>(score.size() + 1);
    const char size = static_cast<char>(elements.size() + 7);
    EXPECT_NE(Message("\x11"s + size + size + "\x00\x00\x00\x02\x00"s + elements + "\xff")
                  .find("a score is not a number"),
              std::string::npos)
        << score;
  }
}

TEST(Dump, HostileLengths) {
  const std::string huge = "\x81\xff\xff\xff\xff\xff\xff\xff\xff"s;
  EXPECT_EQ(Message("\x00"s + huge + "x"),
            "corrupt value at byte 10: 18446744073709551615 bytes expected, 1 left");
  for (const char type : {1, 2, 4, 5, 18, 15, 19, 21}) {
    EXPECT_NE(Message(std::string(1, type) + huge + "\x01x"), "no error") << int{type};
  }
  EXPECT_NE(Message("\x00\xc3\x04"s + huge + "\x00z\xc0\x00"s), "no error");
  EXPECT_NE(Message("\x00\xc3"s + huge + "\x09\x00z\xc0\x00"s), "no error");
}

}  // namespace
}  // namespace prm::rdb
