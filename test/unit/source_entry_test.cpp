#include "source/entry.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lib/cpp/rdb_payloads.h"
#include "rdb/dump.h"

namespace prm::source {
namespace {

class Collector : public rdb::ValueVisitor {
 public:
  void OnString(Bytes value) override { values.emplace_back(value); }
  void OnSetMember(Bytes member) override { values.emplace_back(member); }
  std::vector<std::string> values;
};

std::vector<std::string> Decoded(const Entry& entry) {
  Collector collector;
  const Status status = Decode(entry, collector);
  EXPECT_TRUE(status.ok()) << status.error().message;
  return collector.values;
}

TEST(Entry, PlainIsAString) {
  Entry entry;
  entry.plain = true;
  entry.payload = std::string("\x04\0not a DUMP", 12);
  ASSERT_TRUE(TypeOf(entry).ok());
  EXPECT_EQ(TypeOf(entry).value(), rdb::ValueType::kString);
  EXPECT_EQ(Decoded(entry), std::vector<std::string>{entry.payload});
  Entry dumped;
  dumped.payload = DumpOf(entry).value();
  ASSERT_TRUE(TypeOf(dumped).ok());
  EXPECT_EQ(TypeOf(dumped).value(), rdb::ValueType::kString);
  EXPECT_EQ(Decoded(dumped), std::vector<std::string>{entry.payload});
}

TEST(Entry, AnythingElseIsADump) {
  Entry entry;
  entry.payload = test::Framed(std::string("\x02\x02\x01q\xc0\x05", 6));
  ASSERT_TRUE(TypeOf(entry).ok());
  EXPECT_EQ(TypeOf(entry).value(), rdb::ValueType::kSet);
  EXPECT_EQ(Decoded(entry), (std::vector<std::string>{"q", "5"}));
  EXPECT_EQ(DumpOf(entry).value(), entry.payload);
  entry.payload = "damaged";
  EXPECT_FALSE(TypeOf(entry).ok());
  Collector collector;
  EXPECT_FALSE(Decode(entry, collector).ok());
}

}  // namespace
}  // namespace prm::source
