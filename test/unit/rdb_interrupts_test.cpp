// Work on a value can be cancelled: the visitor is asked at least once for each element.
#include <gtest/gtest.h>

#include <string>

#include "lib/cpp/rdb_builders.h"
#include "lib/cpp/rdb_payloads.h"
#include "rdb/dump.h"
#include "rdb/encoder.h"
#include "rdb/json.h"

namespace prm::rdb {
namespace {

struct Cancelled {};

class Canceller : public ValueVisitor {
 public:
  explicit Canceller(uint64_t limit = UINT64_MAX) : limit_(limit) {}
  void CheckInterrupts() override {
    if (++checks > limit_) throw Cancelled();
  }
  void OnListElement(Bytes) override { ++elements; }
  void OnSetMember(Bytes) override { ++elements; }
  void OnHashField(Bytes, Bytes) override { ++elements; }
  void OnZsetMember(Bytes, double) override { ++elements; }
  void OnStreamEntry(StreamId, const StreamFields&) override { ++elements; }
  void OnStreamPending(const StreamPending&) override { ++elements; }
  uint64_t checks = 0;
  uint64_t elements = 0;

 private:
  uint64_t limit_;
};

void ExpectCancellable(const std::string& payload) {
  Canceller whole;
  ASSERT_TRUE(DecodeDump(payload, whole).ok());
  EXPECT_GE(whole.checks, whole.elements);
  Canceller early(1);
  EXPECT_THROW((void)DecodeDump(payload, early), Cancelled);
}

TEST(Interrupts, EveryLayout) {
  const int count = 1000;
  CollectionEncoder list(ValueType::kList), set(ValueType::kSet), hash(ValueType::kHash),
      zset(ValueType::kZset), expiring(ValueType::kHash), valkey(ValueType::kHash);
  StreamEncoder stream;
  StreamGroupState group;
  group.name = "g";
  group.consumers.push_back({"c", 0});
  std::string intset = test::LittleEndian(2, 4) + test::LittleEndian(count, 4);
  for (int i = 0; i < count; ++i) {
    const std::string text = std::to_string(i);
    list.AddListElement(text);
    set.AddSetMember(text);
    hash.AddHashField(text, text);
    expiring.AddExpiringHashField(text, text, 1000 + i);
    valkey.AddExpiringHashField(text, text, 1000 + i);
    zset.AddZsetMember(text, count - i);
    const StreamId id{static_cast<uint64_t>(i) + 1, 0};
    stream.AddEntry(id, {{"f", text}});
    group.pending.push_back({id, "c", 0, 1});
    intset += test::LittleEndian(static_cast<uint64_t>(i), 2);
  }
  StreamInfo info;
  info.length = count;
  for (const std::string& payload :
       {list.Finish(), set.Finish(), hash.Finish(), zset.Finish(), expiring.Finish(), valkey.Finish(true),
        stream.Finish(info, {group}, true), test::Framed("\x0b" + test::String(intset))}) {
    SCOPED_TRACE(int{payload[0]});
    ExpectCancellable(payload);
  }
}

TEST(Interrupts, PayloadsOfRedis) {
  const auto payloads = test::FixturePayloads();
  if (payloads.empty()) GTEST_SKIP() << "PRM_RDB_FIXTURES is not set";
  for (const std::string& payload : payloads) {
    Canceller whole;
    ASSERT_TRUE(DecodeDump(payload, whole).ok());
    EXPECT_GE(whole.checks, whole.elements);
  }
}

TEST(Interrupts, Json) {
  CollectionEncoder list(ValueType::kList);
  for (int i = 0; i < 10; ++i) list.AddListElement("x");
  Canceller canceller(5);
  JsonCollector json(ValueType::kList, canceller);
  EXPECT_THROW((void)DecodeDump(list.Finish(), json), Cancelled);
}

// A field that a stream's entry has twice stays twice, in the order of the entry.
TEST(Json, FieldsThatOccurTwice) {
  EXPECT_EQ(StreamFieldsJson({{"b", "1"}, {"a", "2"}}), R"({"b": "1", "a": "2"})");
  EXPECT_EQ(StreamFieldsJson({{"b", "1"}, {"a", "2"}, {"b", "0"}}), R"({"a": "2", "b": ["1", "0"]})");
}

}  // namespace
}  // namespace prm::rdb
