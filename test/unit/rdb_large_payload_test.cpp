// Payloads outside memory, compared with the same in memory.
#include "rdb/large_payload.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/cpp/memory_spool.h"
#include "lib/cpp/rdb_builders.h"
#include "lib/cpp/rdb_file.h"
#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "rdb/dump.h"
#include "rdb/encoder.h"
#include "rdb/file_reader.h"

namespace prm::rdb {
namespace {

using test::MemorySpool;
using test::Rows;

constexpr size_t kAround = 100;  // bytes of the body's source that are not part of it

std::shared_ptr<LargePayload> Outside(const std::string& payload, std::shared_ptr<MemorySpool> spool) {
  constexpr size_t kTrailer = kDumpFrameSize - 1;
  const std::string body = payload.substr(1, payload.size() - 1 - kTrailer);
  spool->content = std::string(kAround, 'x') + body + std::string(kAround, 'y');
  auto made =
      LargePayload::Make(payload.substr(0, 1), std::move(spool), kAround, body.size(), *DumpVersion(payload));
  EXPECT_TRUE(made.ok()) << made.error().message;
  return made.value();
}

std::string Whole(LargePayload& payload) {
  std::string bytes(payload.size(), '\0');
  for (size_t at = 0; at < bytes.size();) {
    const Result<size_t> read = payload.Read(at, bytes.data() + at, bytes.size() - at);
    if (!read.ok() || read.value() == 0) return "ends at byte " + std::to_string(at);
    at += read.value();
  }
  return bytes;
}

MakeSpool InMemory() {
  return [] { return std::make_unique<MemorySpool>(); };
}

TEST(LargePayload, EveryTypeInEveryEncoding) {
  test::RedisServer server(test::SampleServerArguments());
  test::RedisClient redis(server.port());
  for (const test::Sample& sample : test::Samples()) {
    SCOPED_TRACE(sample.name);
    const std::string payload = test::DumpSample(redis, sample);
    const auto large = Outside(payload, std::make_shared<MemorySpool>());
    EXPECT_EQ(Whole(*large), payload);
    EXPECT_EQ(large->type().value, DumpType(payload).value());
    const Result<Rows> rows = test::CollectRows(
        large->type().value, [&large](ValueVisitor& visitor) { return large->Decode(visitor); });
    ASSERT_TRUE(rows.ok()) << rows.error().message;
    EXPECT_EQ(rows.value(), test::DecodedRows(payload).value());
  }
}

// Elements of 20 bytes, and a few that are larger than a window; more than is kept in memory.
template <typename Add>
void ForEachElement(Add add) {
  for (int i = 300000; i-- > 0;)
    add(std::to_string(i) + std::string(i % 100000 == 7 ? ByteStream::kWindow + 3 : 14, 'x'), i);
}

void AddTo(CollectionEncoder& encoder, ValueType type, const std::string& element, int i, bool expires) {
  if (type == ValueType::kList) encoder.AddListElement(element);
  if (type == ValueType::kSet) encoder.AddSetMember(element);
  if (type == ValueType::kZset) encoder.AddZsetMember(element, i / 3);
  if (type != ValueType::kHash) return;
  if (expires && i % 3 == 0)
    encoder.AddExpiringHashField(element, "value", 4102444800000 + i);
  else
    encoder.AddHashField(element, "value");
}

TEST(LargePayload, CollectedInASpool) {
  struct Case {
    ValueType type;
    bool expires, valkey;
  };
  for (const Case& one : {Case{ValueType::kList, false, false},
                          {ValueType::kSet, false, false},
                          {ValueType::kZset, false, false},
                          {ValueType::kHash, false, false},
                          {ValueType::kHash, true, false},
                          {ValueType::kHash, true, true}}) {
    SCOPED_TRACE(std::string(TypeName(one.type)) + (one.expires ? " with expiries" : ""));
    CollectionEncoder in_memory(one.type);
    CollectionEncoder spooled(one.type, InMemory());
    ForEachElement([&](const std::string& element, int i) {
      AddTo(in_memory, one.type, element, i, one.expires);
      AddTo(spooled, one.type, element, i, one.expires);
      ASSERT_TRUE(spooled.Spill().ok());
    });
    EXPECT_EQ(spooled.count(), in_memory.count());
    EXPECT_EQ(spooled.size(), in_memory.size());
    const std::string expected = in_memory.Finish(one.valkey);
    std::string payload = "of before";
    std::shared_ptr<LargePayload> large;
    ASSERT_TRUE(spooled.Finish(one.valkey, payload, large).ok());
    EXPECT_TRUE(payload.empty());
    ASSERT_NE(large, nullptr);
    EXPECT_TRUE(Whole(*large) == expected);
  }
}

TEST(LargePayload, ASmallOneStaysInMemory) {
  CollectionEncoder encoder(ValueType::kSet, InMemory());
  encoder.AddSetMember("member");
  ASSERT_TRUE(encoder.Spill().ok());
  std::string payload;
  std::shared_ptr<LargePayload> large;
  ASSERT_TRUE(encoder.Finish(false, payload, large).ok());
  EXPECT_EQ(large, nullptr);
  EXPECT_EQ(test::DecodedRows(payload).value(), Rows({{"member"}}));
}

// Members come in ascending order, block by block; blocks end by number or by bytes.
TEST(LargePayload, MembersInAscendingOrder) {
  class Scores : public ValueVisitor {
   public:
    void OnZsetMember(Bytes member, double score) override {
      EXPECT_EQ(member.substr(0, member.find('x')), std::to_string(next));
      EXPECT_EQ(score, next++ / 3);
    }
    int next = 0;
  };
  for (const int count : {1, 4096, 4097, 20000}) {
    for (const size_t longest : {0, 3000000}) {
      CollectionEncoder encoder(ValueType::kZset);
      for (int i = count - 1; i >= 0; --i)
        encoder.AddZsetMember(std::to_string(i) + std::string(i % 5000 == 4000 ? longest : 0, 'x'), i / 3);
      const std::string payload = encoder.Finish();
      Scores of_memory, of_large;
      EXPECT_TRUE(DecodeDump(payload, of_memory).ok());
      EXPECT_TRUE(Outside(payload, std::make_shared<MemorySpool>())->Decode(of_large).ok());
      EXPECT_EQ(of_memory.next, count);
      EXPECT_EQ(of_large.next, count);
    }
  }
}

class Counter : public ValueVisitor {
 public:
  void OnListElement(Bytes) override { ++elements; }
  void OnHashField(Bytes, Bytes) override { ++elements; }
  int elements = 0;
};

// Whatever byte has changed, nothing is seen of the value.
TEST(LargePayload, ChangedBytesAreNotDecoded) {
  CollectionEncoder encoder(ValueType::kList);
  for (int i = 0; i < 20; ++i) encoder.AddListElement("element " + std::to_string(i));
  const auto spool = std::make_shared<MemorySpool>();
  const auto large = Outside(encoder.Finish(), spool);
  for (size_t at = kAround; at < spool->content.size() - kAround; ++at) {
    const char before = std::exchange(spool->content[at], static_cast<char>(spool->content[at] ^ 1));
    Counter counter;
    const Status status = large->Decode(counter);
    ASSERT_FALSE(status.ok()) << at;
    EXPECT_EQ(status.error().code, ErrorCode::kCorruptData);
    EXPECT_EQ(counter.elements, 0);
    spool->content[at] = before;
  }
  Counter counter;
  EXPECT_TRUE(large->Decode(counter).ok());
  EXPECT_EQ(counter.elements, 20);
  spool->content.resize(kAround + 30);
  EXPECT_FALSE(large->Decode(counter).ok());
}

// A value whose own numbers are wrong, which a checksum does not tell.
TEST(LargePayload, ValuesThatDoNotEndWhereTheyShould) {
  for (const size_t claimed : {1, 3}) {
    const std::string body = test::Length(claimed) + test::String("a") + test::String("b");
    const auto spool = std::make_shared<MemorySpool>();
    spool->content = body;
    const auto large = LargePayload::Make(std::string(1, '\1'), spool, 0, body.size(), 10);
    ASSERT_TRUE(large.ok());
    Counter counter;
    EXPECT_EQ(large.value()->Decode(counter).error().code, ErrorCode::kCorruptData);
  }
  EXPECT_FALSE(LargePayload::Make("\x63", std::make_shared<MemorySpool>(), 0, 0, 10).ok());
  EXPECT_FALSE(LargePayload::Make("\x01", std::make_shared<MemorySpool>(), 0, 1, 10).ok());
}

TEST(LargePayload, InAFile) {
  CollectionEncoder encoder(ValueType::kHash);
  for (int i = 0; i < 300000; ++i) encoder.AddHashField("field " + std::to_string(i), "value");
  const std::string payload = encoder.Finish();
  MemorySpool file;
  file.content = "REDIS0006" +
                 test::FileKeyBytes(4, "large", payload.substr(1, payload.size() - kDumpFrameSize)) +
                 test::FileKeyBytes(4, "small", test::Length(1) + test::String("f") + test::String("v")) +
                 test::FileKeyBytes(0, "string", test::String(std::string(kLargePayload + 1, 's'))) + "\xff" +
                 std::string(8, '\0');
  FileReader reader(file, {});
  ASSERT_TRUE(reader.Open().ok());
  ASSERT_TRUE(reader.Next().value());
  FileReader::Taken taken;
  ASSERT_TRUE(reader.TakeValue(SIZE_MAX, 100, taken).ok());
  EXPECT_TRUE(taken.payload.empty());
  ASSERT_NE(taken.large, nullptr);
  EXPECT_EQ(taken.size, payload.size());
  EXPECT_TRUE(Whole(*taken.large) == payload);

  ASSERT_TRUE(reader.Next().value());
  ASSERT_TRUE(reader.TakeValue(SIZE_MAX, 100, taken).ok());
  EXPECT_EQ(taken.large, nullptr);
  EXPECT_EQ(test::DecodedRows(taken.payload).value(), Rows({{"f", "v"}}));
  ASSERT_TRUE(reader.Next().value());
  ASSERT_TRUE(reader.TakeValue(SIZE_MAX, 100, taken).ok());
  EXPECT_EQ(taken.large, nullptr) << "a string";
  EXPECT_GT(taken.payload.size(), kLargePayload);
  EXPECT_FALSE(reader.Next().value());

  FileReader again(file, {});
  ASSERT_TRUE(again.Open().ok());
  ASSERT_TRUE(again.Next().value());
  ASSERT_TRUE(again.TakeValue(kLargePayload + 1, 100, taken).ok());
  EXPECT_TRUE(taken.payload.empty());
  EXPECT_EQ(taken.large, nullptr) << "larger than the limit";
  EXPECT_EQ(taken.size, payload.size());
}

}  // namespace
}  // namespace prm::rdb
