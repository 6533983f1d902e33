#include "rdb/intset.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace prm::rdb {
namespace {

using std::string_literals::operator""s;

class Members : public ValueVisitor {
 public:
  std::vector<std::string> members;
  void OnSetMember(Bytes member) override { members.emplace_back(member); }
};

// The members, or the error message as the last one.
std::vector<std::string> Decode(const std::string& blob) {
  Members visitor;
  const Status status = DecodeIntset(blob, 3, visitor);
  if (!status.ok()) visitor.members.push_back(status.error().message);
  return visitor.members;
}

TEST(Intset, EveryWidth) {
  EXPECT_EQ(Decode("\x02\x00\x00\x00\x03\x00\x00\x00\x00\x80\x00\x00\xff\x7f"s),
            (std::vector<std::string>{"-32768", "0", "32767"}));
  EXPECT_EQ(Decode("\x04\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x80\xff\xff\xff\x7f"s),
            (std::vector<std::string>{"-2147483648", "2147483647"}));
  EXPECT_EQ(Decode("\x08\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80"
                   "\xff\xff\xff\xff\xff\xff\xff\x7f"s),
            (std::vector<std::string>{"-9223372036854775808", "9223372036854775807"}));
}

TEST(Intset, Empty) { EXPECT_EQ(Decode("\x02\x00\x00\x00\x00\x00\x00\x00"s), std::vector<std::string>{}); }

TEST(Intset, RefusesContradictions) {
  EXPECT_EQ(Decode("\x03\x00\x00\x00\x00\x00\x00\x00"s).back(),
            "corrupt value at byte 8 of the intset at byte 3: its integers have 3 bytes");
  EXPECT_EQ(Decode("\x02\x00\x00\x00\x02\x00\x00\x00\x01\x00"s).back(),
            "corrupt value at byte 8 of the intset at byte 3: 2 integers of 2 bytes expected, 2 bytes left");
  EXPECT_EQ(Decode("\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x02\x00"s).back(),
            "corrupt value at byte 8 of the intset at byte 3: 1 integers of 2 bytes expected, 4 bytes left");
  // 8 * 0x20000000 is 0 in 32 bits.
  EXPECT_NE(Decode("\x08\x00\x00\x00\x00\x00\x00\x20"s), std::vector<std::string>{});
  EXPECT_NE(Decode("\x02\x00\x00\x00\x01"s), std::vector<std::string>{});
}

}  // namespace
}  // namespace prm::rdb
