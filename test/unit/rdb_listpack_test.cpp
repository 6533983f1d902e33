#include "rdb/listpack.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace prm::rdb {
namespace {

using std::string_literals::operator""s;

// A listpack around encoded elements (each with its back length).
std::string Listpack(const std::string& elements, uint16_t count) {
  const uint32_t size = static_cast<uint32_t>(elements.size() + 7);
  std::string blob;
  for (int i = 0; i < 4; ++i) blob.push_back(static_cast<char>(size >> (8 * i)));
  blob.push_back(static_cast<char>(count));
  blob.push_back(static_cast<char>(count >> 8));
  return blob + elements + "\xff";
}

// Its elements, or the error message as the last one.
std::vector<std::string> Elements(const std::string& blob) {
  std::vector<std::string> elements;
  ListpackReader reader(blob, 0);
  Status status = reader.Open();
  while (status.ok() && !reader.AtEnd()) {
    PackedElement element;
    status = reader.Next(element);
    if (status.ok()) elements.emplace_back(element.bytes());
  }
  if (!status.ok()) elements.push_back(status.error().message);
  return elements;
}

void ExpectInteger(const std::string& encoded, int64_t expected) {
  const std::string blob = Listpack(encoded + static_cast<char>(encoded.size()), 1);
  ListpackReader reader(blob, 0);
  ASSERT_TRUE(reader.Open().ok());
  PackedElement element;
  const Status status = reader.Next(element);
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_TRUE(element.is_integer());
  EXPECT_EQ(element.integer(), expected);
  EXPECT_EQ(element.bytes(), std::to_string(expected));
  EXPECT_TRUE(reader.AtEnd());
}

TEST(Listpack, IntegersOfEveryWidth) {
  ExpectInteger("\x00"s, 0);
  ExpectInteger("\x7f"s, 127);
  ExpectInteger("\xc0\x80"s, 128);
  ExpectInteger("\xcf\xff"s, 4095);
  ExpectInteger("\xd0\x00"s, -4096);
  ExpectInteger("\xdf\xff"s, -1);
  ExpectInteger("\xf1\xff\x7f"s, 32767);
  ExpectInteger("\xf1\x00\x80"s, -32768);
  ExpectInteger("\xf2\xff\xff\x7f"s, 8388607);
  ExpectInteger("\xf2\x00\x00\x80"s, -8388608);
  ExpectInteger("\xf3\xff\xff\xff\x7f"s, 2147483647);
  ExpectInteger("\xf3\x00\x00\x00\x80"s, INT32_MIN);
  ExpectInteger("\xf4\xff\xff\xff\xff\xff\xff\xff\x7f"s, INT64_MAX);
  ExpectInteger("\xf4\x00\x00\x00\x00\x00\x00\x00\x80"s, INT64_MIN);
}

TEST(Listpack, StringsOfEveryWidth) {
  EXPECT_EQ(Elements(Listpack("\x80\x01"s, 1)), std::vector<std::string>{""});
  EXPECT_EQ(Elements(Listpack("\x83"
                              "a\0b\x04"s,
                              1)),
            std::vector<std::string>{"a\0b"s});
  const std::string longest6(63, 'x');
  EXPECT_EQ(Elements(Listpack("\xbf"s + longest6 + "\x40", 1)), std::vector<std::string>{longest6});
  const std::string shortest12(64, 'y');
  EXPECT_EQ(Elements(Listpack("\xe0\x40"s + shortest12 + "\x42", 1)), std::vector<std::string>{shortest12});
  // 4097 bytes: back length 0x1001 = 32 * 128 + 1, the second byte with its high bit.
  const std::string longest12(4095, 'z');
  EXPECT_EQ(Elements(Listpack("\xef\xff"s + longest12 + "\x20\x81", 1)), std::vector<std::string>{longest12});
  // 4101 bytes: 32 * 128 + 5.
  const std::string shortest32(4096, 'w');
  EXPECT_EQ(Elements(Listpack("\xf0\x00\x10\x00\x00"s + shortest32 + "\x20\x85", 1)),
            std::vector<std::string>{shortest32});
}

// lpEncodeBacklen in redis src/listpack.c takes three bytes from 16383 on, although 14 bits would do.
TEST(Listpack, BackLengthsGrowWhereRedisLetsThemGrow) {
  const std::string two_bytes(16377, 'a');  // element of 16382 bytes
  EXPECT_EQ(Elements(Listpack("\xf0\xf9\x3f\x00\x00"s + two_bytes + "\x7f\xfe", 1)),
            std::vector<std::string>{two_bytes});
  const std::string three_bytes(16378, 'b');  // element of 16383 bytes
  EXPECT_EQ(Elements(Listpack("\xf0\xfa\x3f\x00\x00"s + three_bytes + "\x00\xff\xff"s, 1)),
            std::vector<std::string>{three_bytes});
}

TEST(Listpack, SeveralElementsAndNone) {
  EXPECT_EQ(Elements(Listpack("", 0)), std::vector<std::string>{});
  EXPECT_EQ(Elements(Listpack("\x05\x01\x81q\x02\x06\x01"s, 3)), (std::vector<std::string>{"5", "q", "6"}));
  EXPECT_EQ(Elements(Listpack("\x05\x01\x81q\x02"s, 0xffff)), (std::vector<std::string>{"5", "q"}));
}

TEST(Listpack, RefusesContradictions) {
  const std::string good = Listpack("\x81q\x02"s, 1);
  EXPECT_EQ(Elements(good), std::vector<std::string>{"q"});
  EXPECT_EQ(Elements(good + "\xff").back(),
            "corrupt value at byte 6 of the listpack at byte 0: its header says 10 bytes, it has 11");
  EXPECT_EQ(Elements(good.substr(0, 5)).back(),
            "corrupt value at byte 4 of the listpack at byte 0: 2 bytes expected, 0 left");
  EXPECT_EQ(Elements("\x06\x00\x00\x00\x00\x00"s).back(),
            "corrupt value at byte 4 of the listpack at byte 0: 2 bytes expected, 1 left");
  EXPECT_EQ(Elements("").back(),
            "corrupt value at byte 0 of the listpack at byte 0: 4 bytes expected, 0 left");
  EXPECT_EQ(Elements("\x08\x00\x00\x00\x01\x00\x05\x01"s).back(),
            "corrupt value at byte 6 of the listpack at byte 0: it has no end mark");
  EXPECT_EQ(Elements(Listpack("\x81q\x02"s, 2)).back(),
            "corrupt value at byte 9 of the listpack at byte 0: its header says 2 elements, it has 1");
  EXPECT_EQ(Elements(Listpack("\x81q\x02"s, 0)).back(),
            "corrupt value at byte 9 of the listpack at byte 0: its header says 0 elements, it has 1");
  EXPECT_EQ(Elements(Listpack("", 1)).back(),
            "corrupt value at byte 6 of the listpack at byte 0: its header says 1 elements, it has 0");
  EXPECT_EQ(Elements(Listpack("\x81q\x03"s, 1)).back(),
            "corrupt value at byte 9 of the listpack at byte 0: wrong back length of an element");
  EXPECT_EQ(Elements(Listpack("\x8fq\x02"s, 1)).back(),
            "corrupt value at byte 7 of the listpack at byte 0: 15 bytes expected, 2 left");
  EXPECT_EQ(Elements(Listpack("\xf5\x01"s, 1)).back(),
            "corrupt value at byte 7 of the listpack at byte 0: unknown element encoding 245");
  EXPECT_EQ(Elements(Listpack("\xf0\xff\xff\xff\xff"s, 1)).back(),
            "corrupt value at byte 11 of the listpack at byte 0: 4294967295 bytes expected, 0 left");
  // The end mark cannot be the last byte of a string, nor a back length.
  EXPECT_EQ(Elements(Listpack("\x81"s, 1)).back(),
            "corrupt value at byte 7 of the listpack at byte 0: 1 bytes expected, 0 left");
  EXPECT_EQ(Elements(Listpack("\x81q"s, 1)).back(),
            "corrupt value at byte 8 of the listpack at byte 0: 1 bytes expected, 0 left");
}

TEST(Listpack, NoElementAfterTheLast) {
  const std::string blob = Listpack("\x05\x01"s, 1);
  ListpackReader reader(blob, 30);
  PackedElement element;
  ASSERT_TRUE(reader.Open().ok());
  ASSERT_TRUE(reader.Next(element).ok());
  const Status status = reader.Next(element);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message,
            "corrupt value at byte 8 of the listpack at byte 30: it ends where an element is expected");
}

TEST(Listpack, NextIntegerRefusesAString) {
  const std::string blob = Listpack("\x05\x01\x81q\x02"s, 2);
  ListpackReader reader(blob, 0);
  int64_t value = 0;
  ASSERT_TRUE(reader.Open().ok());
  ASSERT_TRUE(reader.NextInteger(value).ok());
  EXPECT_EQ(value, 5);
  EXPECT_FALSE(reader.NextInteger(value).ok());
}

TEST(Listpack, CopiesOfAnIntegerElementRenderThemselves) {
  std::vector<PackedElement> elements;
  const std::string blob = Listpack("\x05\x01\x06\x01"s, 2);
  ListpackReader reader(blob, 0);
  ASSERT_TRUE(reader.Open().ok());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(reader.Next(elements.emplace_back()).ok());
    EXPECT_EQ(elements.back().bytes(), i == 0 ? "5" : "6");
  }
  EXPECT_EQ(elements[0].bytes(), "5");
}

}  // namespace
}  // namespace prm::rdb
