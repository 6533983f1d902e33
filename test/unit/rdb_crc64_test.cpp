#include "rdb/crc64.h"

#include <gtest/gtest.h>

#include <string>

namespace prm::rdb {
namespace {

// Computes CRC-64/Jones bit by bit from its definition, for comparison with the table-driven sum.
uint64_t Definition(Bytes data) {
  uint64_t crc = 0;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) {
      const bool carry = (crc & 1) != 0;
      crc >>= 1;
      if (carry) crc ^= 0x95ac9329ac4bc9b5;
    }
  }
  return crc;
}

TEST(Crc64, CheckValueOfTheCatalogue) { EXPECT_EQ(Crc64("123456789"), 0xe9c6d914c4b8d9caU); }

TEST(Crc64, NothingIsZero) { EXPECT_EQ(Crc64(""), 0u); }

TEST(Crc64, EveryLengthAndAlignment) {
  std::string data;
  for (int i = 0; i < 80; ++i) data.push_back(static_cast<char>(i * 37 + 200));
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t length = 0; length <= 70; ++length) {
      const Bytes piece = Bytes(data).substr(begin, length);
      EXPECT_EQ(Crc64(piece), Definition(piece)) << begin << " " << length;
    }
  }
}

TEST(Crc64, PiecesSumToTheWhole) {
  const std::string data = "the quick brown fox jumps over the lazy dog";
  for (size_t cut = 0; cut <= data.size(); ++cut) {
    EXPECT_EQ(Crc64(Bytes(data).substr(cut), Crc64(Bytes(data).substr(0, cut))), Crc64(data)) << cut;
  }
}

}  // namespace
}  // namespace prm::rdb
