#include "rdb/lzf.h"

#include <gtest/gtest.h>

#include <string>

namespace prm::rdb {
namespace {

using std::string_literals::operator""s;

std::string Expand(Bytes compressed, uint64_t size) {
  std::string output = "what was there before";
  const Status status = LzfDecompress(compressed, size, output);
  return status.ok() ? output : "error: " + status.error().message;
}

TEST(Lzf, Literals) {
  EXPECT_EQ(Expand("\x00"
                   "a"s,
                   1),
            "a");
  EXPECT_EQ(Expand("\x02"
                   "abc\x01"
                   "de"s,
                   5),
            "abcde");
  const std::string longest(32, 'x');
  EXPECT_EQ(Expand("\x1f"s + longest, 32), longest);
  EXPECT_EQ(Expand("", 0), "");
}

TEST(Lzf, ShortRepetition) {
  // Length 3 (1 + 2), distance 3 (2 + 1).
  EXPECT_EQ(Expand("\x02"
                   "abc\x20\x02"s,
                   6),
            "abcabc");
}

TEST(Lzf, RepetitionOverlapsItself) {
  // Length 8 (6 + 2), distance 1.
  EXPECT_EQ(Expand("\x00"
                   "z\xc0\x00"s,
                   9),
            "zzzzzzzzz");
  // Length 7, distance 2.
  EXPECT_EQ(Expand("\x01"
                   "ab\xa0\x01"s,
                   9),
            "ababababa");
}

TEST(Lzf, LongestRepetition) {
  // Length 264 (7 + 255 + 2), distance 1: three bytes.
  EXPECT_EQ(Expand("\x00"
                   "z\xe0\xff\x00"s,
                   265),
            std::string(265, 'z'));
}

TEST(Lzf, LongestDistance) {
  // 8192 bytes back: the low five bits of the first byte and the second byte all set.
  std::string compressed;
  std::string expected;
  for (int i = 0; i < 256; ++i) {
    const std::string literal(32, static_cast<char>('A' + i % 50));
    compressed += "\x1f"s + literal;
    expected += literal;
  }
  compressed += "\x3f\xff"s;
  EXPECT_EQ(Expand(compressed, 8195), expected + "AAA");
}

TEST(Lzf, RefusesWhatDoesNotFit) {
  const std::string a =
      "\x00"
      "a"s;
  const std::string abc =
      "\x02"
      "abc";
  const std::string prefix = "error: corrupt value at byte ";
  const std::string place = " of the compressed string at byte 0: ";
  // A literal over the end, a repetition without distance, without length.
  EXPECT_EQ(Expand(abc.substr(0, 3), 3), prefix + "1" + place + "3 bytes expected, 2 left");
  EXPECT_EQ(Expand(a + "\x20", 4), prefix + "3" + place + "1 bytes expected, 0 left");
  EXPECT_EQ(Expand(a + "\xe0", 9), prefix + "3" + place + "1 bytes expected, 0 left");
  // Two back where one is, one back where none is.
  EXPECT_EQ(Expand(a + "\x20\x01", 4), prefix + "4" + place + "a repetition begins before the string");
  EXPECT_EQ(Expand("\x20\x00"s, 3), prefix + "2" + place + "a repetition begins before the string");
  // More and less than the size.
  EXPECT_EQ(Expand(abc, 2), prefix + "4" + place + "it expands to more than its size");
  EXPECT_EQ(Expand(a + "\xc0\x00"s, 8), prefix + "4" + place + "it expands to more than its size");
  EXPECT_EQ(Expand(abc, 4), prefix + "4" + place + "it expands to less than its size");
  EXPECT_EQ(Expand("", 1), prefix + "0" + place + "it expands to less than its size");
}

TEST(Lzf, ErrorsNameTheOffsets) {
  std::string output;
  const Status status = LzfDecompress(
      "\x00"
      "a\x20\x05"s,
      4, output, 17);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message,
            "corrupt value at byte 4 of the compressed string at byte 17: a repetition begins before the "
            "string");
}

TEST(Lzf, HostileSizeAllocatesNothing) {
  std::string output;
  EXPECT_FALSE(LzfDecompress("\x02"
                             "abc"s,
                             uint64_t{1} << 40, output)
                   .ok());
  EXPECT_FALSE(LzfDecompress("\x02"
                             "abc"s,
                             UINT64_MAX, output)
                   .ok());
  EXPECT_FALSE(LzfDecompress("\x02"
                             "abc"s,
                             500'000'000, output)
                   .ok());
  EXPECT_LT(output.capacity(), 100u);
  const std::string enough(16'000'000, '\0');
  const Status status = LzfDecompress(enough, (uint64_t{1} << 30) + 1, output);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kTooLarge);
}

}  // namespace
}  // namespace prm::rdb
