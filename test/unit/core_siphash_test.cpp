#include "core/sip_hasher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace prm {
namespace {

std::string Hex(const Hash128& hash) {
  std::string text;
  for (const uint64_t word : {hash.low, hash.high}) {
    for (int i = 0; i < 8; ++i) {
      char digits[3];
      std::snprintf(digits, sizeof(digits), "%02X", static_cast<unsigned>(word >> (8 * i) & 0xff));
      text += digits;
    }
  }
  return text;
}

// Key 00 01 .. 0f, message 00 01 .. n-1, as in the vectors of the reference implementation. Computed by
// openssl mac -macopt hexkey:000102030405060708090a0b0c0d0e0f -macopt size:16 -in message SipHash
TEST(SipHash, AgreesWithOpenssl) {
  const SipKey key = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
  const std::pair<size_t, const char*> vectors[] = {
      {0, "A3817F04BA25A8E66DF67214C7550293"},  {1, "DA87C1D86B99AF44347659119B22FC45"},
      {7, "A1F1EBBED8DBC153C0B84AA61FF08239"},  {8, "3B62A9BA6258F5610F83E264F31497B4"},
      {9, "264499060AD9BAABC47F8B02BB6D71ED"},  {15, "5493E99933B0A8117E08EC0F97CFC3D9"},
      {16, "6EE2A4CA67B054BBFD3315BF85230577"}, {63, "5150D1772F50834A503E069A973FBD7C"},
  };
  for (const auto& [size, expected] : vectors) {
    std::string message;
    for (size_t i = 0; i < size; ++i) message += static_cast<char>(i);
    EXPECT_EQ(Hex(SipHash128(key, message)), expected) << size;
  }
}

// However the bytes are divided, and again after Finish and Clear.
TEST(SipHasher, TakesBytesInParts) {
  const SipKey key = {1, 2};
  SipHasher hasher(key);
  std::string message;
  for (int i = 0; i < 40; ++i) message += static_cast<char>(i * 7);
  for (size_t size = 0; size <= message.size(); ++size) {
    const Bytes whole = Bytes(message).substr(0, size);
    for (size_t first = 0; first <= size; ++first) {
      for (size_t second : {first, std::min(first + 3, size), size}) {
        hasher.Add(whole.substr(0, first));
        hasher.Add(whole.substr(first, second - first));
        hasher.Add(whole.substr(second));
        ASSERT_EQ(hasher.Finish(), SipHash128(key, whole)) << size << " " << first << " " << second;
      }
    }
    hasher.Add("forgotten");
    hasher.Clear();
  }
}

TEST(SipHash, RandomKeysDiffer) { EXPECT_NE(RandomSipKey(), RandomSipKey()); }

}  // namespace
}  // namespace prm
