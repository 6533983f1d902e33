#include "rdb/encoded_string.h"

#include <gtest/gtest.h>

#include <string>

namespace prm::rdb {
namespace {

using std::string_literals::operator""s;

uint64_t Length(const std::string& bytes) {
  ByteReader reader(bytes);
  uint64_t length = 0;
  const Status status = ReadLength(reader, length);
  EXPECT_TRUE(status.ok()) << status.error().message;
  EXPECT_TRUE(reader.AtEnd());
  return length;
}

std::string String(const std::string& bytes) {
  ByteReader reader(bytes);
  std::string scratch;
  Bytes value;
  const Status status = ReadString(reader, scratch, value);
  EXPECT_TRUE(status.ok()) << status.error().message;
  EXPECT_TRUE(reader.AtEnd());
  return std::string(value);
}

std::string StringError(const std::string& bytes) {
  ByteReader reader(bytes);
  std::string scratch;
  Bytes value;
  const Status status = ReadString(reader, scratch, value);
  EXPECT_FALSE(status.ok());
  return status.ok() ? "" : status.error().message;
}

TEST(EncodedLength, EveryWidth) {
  EXPECT_EQ(Length("\x00"s), 0u);
  EXPECT_EQ(Length("\x3f"s), 63u);
  EXPECT_EQ(Length("\x40\x40"s), 64u);
  EXPECT_EQ(Length("\x7f\xff"s), 16383u);
  EXPECT_EQ(Length("\x80\x00\x00\x40\x00"s), 16384u);
  EXPECT_EQ(Length("\x80\xff\xff\xff\xff"s), 4294967295u);
  EXPECT_EQ(Length("\x81\x00\x00\x00\x01\x00\x00\x00\x00"s), 4294967296u);
  EXPECT_EQ(Length("\x81\xff\xff\xff\xff\xff\xff\xff\xff"s), UINT64_MAX);
}

TEST(EncodedLength, RefusesStringsAndUnknownKinds) {
  for (const std::string& bytes :
       {"\xc0\x01"s, "\x82\x01\x02\x03\x04\x05\x06\x07\x08"s, ""s, "\x40"s, "\x80\x01"s, "\x81\x01"s}) {
    ByteReader reader(bytes);
    uint64_t length = 0;
    EXPECT_FALSE(ReadLength(reader, length).ok()) << testing::PrintToString(bytes);
  }
}

TEST(EncodedString, Plain) {
  EXPECT_EQ(String("\x00"s), "");
  EXPECT_EQ(String("\x03"
                   "a\0b"s),
            "a\0b"s);
  EXPECT_EQ(String("\x40\x50"s + std::string(80, 'x')), std::string(80, 'x'));
}

TEST(EncodedString, Integers) {
  EXPECT_EQ(String("\xc0\x00"s), "0");
  EXPECT_EQ(String("\xc0\x7f"s), "127");
  EXPECT_EQ(String("\xc0\x80"s), "-128");
  EXPECT_EQ(String("\xc1\x00\x80"s), "-32768");
  EXPECT_EQ(String("\xc1\x39\x30"s), "12345");
  EXPECT_EQ(String("\xc2\x00\x00\x00\x80"s), "-2147483648");
  EXPECT_EQ(String("\xc2\xff\xff\xff\x7f"s), "2147483647");
}

TEST(EncodedString, Compressed) { EXPECT_EQ(String("\xc3\x04\x09\x00z\xc0\x00"s), "zzzzzzzzz"); }

TEST(EncodedString, Refuses) {
  EXPECT_EQ(StringError("\xc4"s), "corrupt value at byte 1: unknown string encoding 4");
  EXPECT_EQ(StringError("\x05"
                        "abc"s),
            "corrupt value at byte 1: 5 bytes expected, 3 left");
  EXPECT_EQ(StringError("\x81\xff\xff\xff\xff\xff\xff\xff\xff"
                        "abc"s),
            "corrupt value at byte 9: 18446744073709551615 bytes expected, 3 left");
  EXPECT_EQ(StringError("\xc3\x04\xc0"s),
            "corrupt value at byte 3: a string is found where a length is expected");
  EXPECT_EQ(StringError("\xc3\x02\x09\x00z\xc0\x00"s),
            "corrupt value at byte 2 of the compressed string at byte 3: it expands to less than its size");
}

}  // namespace
}  // namespace prm::rdb
