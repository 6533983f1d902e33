#include "core/capture_type.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace prm {
namespace {

void ExpectFits(CaptureType type, std::initializer_list<Bytes> texts) {
  for (const Bytes text : texts) EXPECT_TRUE(FitsType(type, text)) << CaptureTypeName(type) << ": " << text;
}

void ExpectMisfits(CaptureType type, std::initializer_list<Bytes> texts) {
  for (const Bytes text : texts) EXPECT_FALSE(FitsType(type, text)) << CaptureTypeName(type) << ": " << text;
}

TEST(CaptureType, NamesAreReadBack) {
  for (const CaptureType type :
       {CaptureType::kText, CaptureType::kInt, CaptureType::kNumber, CaptureType::kUuid, CaptureType::kInet,
        CaptureType::kDate, CaptureType::kMonth, CaptureType::kHex, CaptureType::kEmail}) {
    EXPECT_EQ(CaptureTypeFromName(CaptureTypeName(type)), type);
  }
  EXPECT_EQ(CaptureTypeFromName("Int"), std::nullopt);
  EXPECT_EQ(CaptureTypeFromName(""), std::nullopt);
  EXPECT_EQ(CaptureTypeNames(), "text, int, number, uuid, inet, date, month, hex, email");
}

TEST(CaptureType, NothingFitsTheEmptyText) {
  for (int type = 0; type <= static_cast<int>(CaptureType::kEmail); ++type) {
    EXPECT_FALSE(FitsType(static_cast<CaptureType>(type), ""));
  }
}

TEST(CaptureType, Text) {
  ExpectFits(CaptureType::kText, {"a", Bytes("\0", 1), "\xff\xfe", std::string(70000, ':')});
}

TEST(CaptureType, Int) {
  ExpectFits(CaptureType::kInt,
             {"0", "7", "-7", "10", "9223372036854775807", "-9223372036854775808", "1000000000000000000"});
  ExpectMisfits(CaptureType::kInt,
                {"-", "-0", "00", "01", "-01", "+1", "1.0", "1e3", " 1", "1 ", "0x1", "9223372036854775808",
                 "-9223372036854775809", "99999999999999999999", Bytes("1\0", 2), "\xd9\xa1"});
}

TEST(CaptureType, Number) {
  ExpectFits(CaptureType::kNumber,
             {"0", "1794782360.054569", "-0.5", "0.0", "1.50", "-12", "10.01",
              "115792089237316195423570985008687907853269984665640564039457584007913129639935"});
  ExpectMisfits(CaptureType::kNumber,
                {"-", "-0", "-0.0", "01", "01.5", "00.5", ".5", "5.", "+1", "1.2.3", "1e5", "1,5", "NaN",
                 "Infinity", std::string(kMaxTypedBytes + 1, '1')});
  EXPECT_TRUE(FitsType(CaptureType::kNumber, std::string(kMaxTypedBytes, '1')));
}

TEST(CaptureType, Uuid) {
  ExpectFits(CaptureType::kUuid,
             {"123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000",
              "00000000-0000-0000-0000-000000000000"});
  ExpectMisfits(CaptureType::kUuid,
                {"123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400",
                 "123e4567-e89b-12d3-a456-4266141740000", "123e4567-e89b-12d3-a456-42661417400g",
                 "123e456-7e89b-12d3-a456-426614174000", "{123e4567-e89b-12d3-a456-426614174000}"});
}

TEST(CaptureType, Inet) {
  ExpectFits(
      CaptureType::kInet,
      {"0.0.0.0", "10.0.0.1", "255.255.255.255", "::", "::1", "1::", "2001:db8::19", "2001:DB8::19",
       "1:2:3:4:5:6:7:8", "0001:0002:0003:0004:0005:0006:0007:0008", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8",
       "1::3:4:5:6:7:8", "::ffff:192.0.2.1", "64:ff9b::192.0.2.33", "1:2:3:4:5:6:192.0.2.1", "::192.0.2.1",
       "::2:3:4:5:6:192.0.2.1", "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"});
  ExpectMisfits(CaptureType::kInet, {"None",
                                     "10.0.0",
                                     "10.0.0.256",
                                     "10.0.0.01",
                                     "010.0.0.1",
                                     "10.0.0.1.",
                                     "10.0.0.1/8",
                                     "10",
                                     "1:2:3",
                                     ":",
                                     ":::",
                                     ":1",
                                     "1:",
                                     "1:2:3:4:5:6:7",
                                     "1:2:3:4:5:6:7:",
                                     "1:2:3:4:5:6:7:8:9",
                                     "1:2:3:4:5:6:7:8::",
                                     "::1:2:3:4:5:6:7:8",
                                     "1::2::3",
                                     "12345::",
                                     "g::",
                                     "fe80::1%eth0",
                                     "::1/128",
                                     "2001:db8::19:daily",
                                     "1:2:3:4:5:6:7:192.0.2.1",
                                     "::3:4:5:6:7:8:192.0.2.1",
                                     "1:2:3:4:5:192.0.2.1",
                                     "::192.0.2.1:1",
                                     "[::1]"});
}

// inet_pton() reads the same texts (RFC 4291) except that it says nothing about prefixes.
TEST(CaptureType, InetAgreesWithTheCLibrary) {
  std::minstd_rand random(1);
  constexpr std::string_view kPieces[] = {":", ":",   "::",  ".",   "0",     "1",   "12",
                                          "a", "fFf", "255", "256", "1:2:3", ".1.2"};
  int fitting = 0;
  for (int round = 0; round < 300000; ++round) {
    std::string text;
    const int pieces = 1 + static_cast<int>(random() % 12);
    for (int piece = 0; piece < pieces; ++piece) text += kPieces[random() % std::size(kPieces)];
    unsigned char address[16];
    const bool expected =
        inet_pton(AF_INET, text.c_str(), address) == 1 || inet_pton(AF_INET6, text.c_str(), address) == 1;
    ASSERT_EQ(FitsType(CaptureType::kInet, text), expected) << text;
    fitting += expected ? 1 : 0;
  }
  EXPECT_GT(fitting, 1000);  // the texts are not all nonsense
}

TEST(CaptureType, Date) {
  ExpectFits(CaptureType::kDate, {"2026-11-13", "20261113", "2024-02-29", "2000-02-29", "20000229",
                                  "0001-01-01", "9999-12-31", "2025-04-30"});
  ExpectMisfits(CaptureType::kDate,
                {"2025-02-30", "2025-02-29", "1900-02-29", "20250229", "2025-13-01", "2025-00-10",
                 "2025-01-00", "2025-04-31", "0000-01-01", "2025-1-1", "2025-01", "202501", "2025-0101",
                 "202501-01", "2025/01/01", "13-11-2026", "2026-11-13T00:00", "-026-11-13"});
}

TEST(CaptureType, Month) {
  ExpectFits(CaptureType::kMonth, {"2026-11", "202611", "0001-01", "9999-12"});
  ExpectMisfits(CaptureType::kMonth,
                {"2026-13", "2026-00", "202613", "0000-01", "2026-1", "2026", "2026-11-13", "26-11"});
}

TEST(CaptureType, Hex) {
  ExpectFits(CaptureType::kHex,
             {"0", "abc", "DEADbeef", "0123456789abcdef", std::string(kMaxTypedBytes, 'f')});
  ExpectMisfits(CaptureType::kHex, {"g", "0x1f", "ab-cd", " ab", std::string(kMaxTypedBytes + 1, 'f')});
}

TEST(CaptureType, Email) {
  ExpectFits(CaptureType::kEmail,
             {"ada.0@example.com", "a@b.c", "ada+tag@mail.example.co.uk", "\xc3\xa9lise@example.fr",
              "o'neil@x-y.org", "a@1.2", "\"quoted\"@example.com"});
  ExpectMisfits(CaptureType::kEmail, {"@example.com",
                                      "ada",
                                      "ada@",
                                      "ada@example",
                                      "ada@@example.com",
                                      "a@b@example.com",
                                      "ada @example.com",
                                      "ada\t@example.com",
                                      Bytes("a\0@example.com", 14),
                                      "ada@example..com",
                                      "ada@.example.com",
                                      "ada@example.com.",
                                      "ada@-example.com",
                                      "ada@example-.com",
                                      "ada@example.com-",
                                      "ada@exa mple.com",
                                      "ada@ex\xc3\xa9mple.com",
                                      "a:b@example.com",
                                      "ada@example.com:10.0.0.1",
                                      "a\x7f@example.com"});
}

TEST(CaptureType, PrefixesAscendAndAreValues) {
  std::minstd_rand random(2);
  constexpr std::string_view kAlphabet = "0011259.-::a@b";
  size_t found = 0;
  for (int round = 0; round < 100000; ++round) {
    std::string text;
    for (size_t size = random() % 24; text.size() < size;) text += kAlphabet[random() % kAlphabet.size()];
    for (int t = static_cast<int>(CaptureType::kInt); t <= static_cast<int>(CaptureType::kEmail); ++t) {
      const auto type = static_cast<CaptureType>(t);
      PrefixLengths prefixes;
      FindPrefixes(type, text, prefixes);
      size_t next = 0;
      for (size_t length = 1; length <= text.size(); ++length) {
        if (!FitsType(type, Bytes(text).substr(0, length))) continue;
        ASSERT_LT(next, prefixes.count) << CaptureTypeName(type) << ": " << text;
        ASSERT_EQ(prefixes.length[next++], length) << CaptureTypeName(type) << ": " << text;
      }
      ASSERT_EQ(next, prefixes.count) << CaptureTypeName(type) << ": " << text;
      found += next;
    }
  }
  EXPECT_GT(found, 100000u);
}

// Exactly one of all spellings of a value is accepted. Values of text and the like have only one.
TEST(CaptureType, OneSpellingIsCanonical) {
  const struct {
    CaptureType type;
    std::vector<Bytes> canonical;
    std::vector<Bytes> others;
  } cases[] = {
      {CaptureType::kText, {"", "a", "A"}, {}},
      {CaptureType::kInt, {"0", "-7", "9223372036854775807"}, {}},
      {CaptureType::kHex, {"ff", "FF"}, {}},
      {CaptureType::kEmail, {"a@b.c", "A@b.c"}, {}},
      {CaptureType::kNumber, {"0", "-7", "10", "1.5", "0.05", "100.01"}, {"1.0", "1.50", "0.0", "10.10"}},
      {CaptureType::kUuid,
       {"123e4567-e89b-12d3-a456-426614174000"},
       {"123E4567-e89b-12d3-a456-426614174000"}},
      {CaptureType::kInet,
       {"10.0.0.5", "::", "::1", "2001:db8::1", "fe80::a:0:0:1", "::ffff:10.0.0.5"},
       {"0:0:0:0:0:0:0:1", "2001:DB8::1", "2001:db8:0::1", "2001:0db8::1", "::ffff:a00:5"}},
      {CaptureType::kDate, {"2024-02-29"}, {"20240229"}},
      {CaptureType::kMonth, {"2024-02"}, {"202402"}},
  };
  for (const auto& one : cases) {
    for (const Bytes text : one.canonical) EXPECT_TRUE(IsCanonical(one.type, text)) << text;
    for (const Bytes text : one.others) {
      EXPECT_TRUE(FitsType(one.type, text)) << text;
      EXPECT_FALSE(IsCanonical(one.type, text)) << text;
    }
  }
}

}  // namespace
}  // namespace prm
