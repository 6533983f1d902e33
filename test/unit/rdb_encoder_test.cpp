// Encoded values, compared with what the decoder and redis-server read back.
#include "rdb/encoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "rdb/dump.h"

namespace prm::rdb {
namespace {

using test::Rows;

class EncoderTest : public testing::Test {
 protected:
  EncoderTest() : server_({"--sanitize-dump-payload", "yes"}), redis_(server_.port()) {}

  // Decodes the payload, and compares with the key that RESTORE makes of it.
  Rows RoundTrip(const std::string& payload) {
    const Result<Rows> decoded = test::DecodedRows(payload);
    EXPECT_TRUE(decoded.ok()) << decoded.error().message;
    redis_.Command({"RESTORE", "key", "0", payload, "REPLACE"});
    EXPECT_EQ(test::RedisRows(redis_, "key"), decoded.value());
    return decoded.value();
  }

  test::RedisServer server_;
  test::RedisClient redis_;
};

// Around every limit of a length's encoding, and bytes of every kind.
std::vector<std::string> Elements() {
  std::vector<std::string> elements = {"12",  "-7", "007", "9223372036854775807", std::string("\0a\0", 3),
                                       "\xff"};
  for (const size_t size : {0, 1, 62, 63, 64, 65, 127, 128, 4095, 4096, 16383, 16384, 70000}) {
    elements.push_back(std::string(size, 'x'));
  }
  return elements;
}

TEST_F(EncoderTest, Lists) {
  CollectionEncoder encoder(ValueType::kList);
  Rows expected;
  for (const std::string& element : Elements()) {
    for (int i = 0; i < 2; ++i) {
      encoder.AddListElement(element);
      expected.push_back({element});
    }
  }
  EXPECT_EQ(encoder.count(), expected.size());
  EXPECT_EQ(RoundTrip(encoder.Finish()), expected);
}

TEST_F(EncoderTest, Sets) {
  CollectionEncoder encoder(ValueType::kSet);
  for (const std::string& element : Elements()) encoder.AddSetMember(element);
  const size_t count = encoder.count();
  EXPECT_EQ(RoundTrip(encoder.Finish()).size(), count);
}

TEST_F(EncoderTest, Hashes) {
  CollectionEncoder encoder(ValueType::kHash);
  std::string last = "last";
  for (const std::string& element : Elements()) {
    encoder.AddHashField(element, last);
    last = element;
  }
  const Rows rows = RoundTrip(encoder.Finish());
  EXPECT_EQ(rows.size(), Elements().size());
}

TEST_F(EncoderTest, SortedSets) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> scores = {infinity, 1e308, 3.0,  0.1 + 0.2, std::nextafter(0.3, 0),
                                      5e-324,   0.0,   -0.5, -1e17,     -infinity};
  CollectionEncoder encoder(ValueType::kZset);
  for (size_t i = 0; i < scores.size(); ++i) encoder.AddZsetMember("member " + std::to_string(i), scores[i]);
  EXPECT_EQ(RoundTrip(encoder.Finish()).size(), scores.size());
  EXPECT_EQ(redis_.Strings({"ZRANGE", "key", "0", "0"})[0], "member 9");
  EXPECT_EQ(redis_.String({"ZSCORE", "key", "member 3"}), "0.30000000000000004");
}

// They are decoded in blocks, from the last one to the first.
TEST_F(EncoderTest, ManyMembersInAscendingOrder) {
  class Scores : public ValueVisitor {
   public:
    void OnZsetMember(Bytes member, double score) override {
      EXPECT_EQ(member, std::to_string(next));
      EXPECT_EQ(score, next++ / 3);
    }
    int next = 0;
  };
  for (const int count : {0, 1, 4096, 4097, 20000}) {
    CollectionEncoder encoder(ValueType::kZset);
    for (int i = count - 1; i >= 0; --i) encoder.AddZsetMember(std::to_string(i), i / 3);
    const std::string payload = encoder.Finish();
    Scores scores;
    EXPECT_TRUE(DecodeDump(payload, scores).ok());
    EXPECT_EQ(scores.next, count);
  }
}

TEST_F(EncoderTest, ManyElements) {
  CollectionEncoder encoder(ValueType::kSet);
  for (int i = 0; i < 100000; ++i) encoder.AddSetMember("member:" + std::to_string(i));
  RoundTrip(encoder.Finish());
  EXPECT_EQ(redis_.Integer({"SCARD", "key"}), 100000);
}

// Grown by doubling, it would have almost twice the room.
TEST_F(EncoderTest, AnExpectedCountMakesRoomOnce) {
  CollectionEncoder encoder(ValueType::kList);
  const std::string element(1024, 'x');
  for (int i = 0; i < 2000; ++i) {
    encoder.AddListElement(element);
    encoder.ExpectCount(2000, uint64_t{1} << 30);
  }
  const std::string payload = encoder.Finish();
  EXPECT_LT(payload.capacity(), payload.size() * 4 / 3);
  EXPECT_EQ(RoundTrip(payload).size(), 2000U);
}

// Whoever announces more elements than it sends takes no memory beyond the limit.
TEST_F(EncoderTest, AnExpectedCountTakesNoMoreThanTheLimit) {
  CollectionEncoder encoder(ValueType::kList);
  const std::string element(1 << 20, 'x');
  constexpr uint64_t kLimit = 3 << 20;
  encoder.AddListElement(element);
  encoder.ExpectCount(UINT64_MAX, kLimit);
  EXPECT_LE(encoder.Finish().capacity(), kLimit + kLimit / 8);
}

TEST_F(EncoderTest, EmptyCollectionsAreValues) {
  CollectionEncoder encoder(ValueType::kList);
  const Result<Rows> decoded = test::DecodedRows(encoder.Finish());
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(decoded.value().empty());
}

class StreamEncoderTest : public EncoderTest {
 protected:
  void Add(StreamId id, const std::vector<std::pair<std::string, std::string>>& fields) {
    StreamFields views;
    for (const auto& [field, value] : fields) views.emplace_back(field, value);
    encoder_.AddEntry(id, views);
    if (info_.length++ == 0) info_.first_id = id;
    info_.last_id = id;
    info_.entries_added = info_.length;
  }

  StreamEncoder encoder_;
  StreamInfo info_;
};

TEST_F(StreamEncoderTest, EntriesOfEveryKind) {
  Add({1, 900}, {{"a", "1"}, {"b", "2"}});
  Add({2, 3}, {{"a", "x"}, {"b", ""}});  // the same fields; the sequence number is less
  Add({2, 4}, {{"other", "y"}});
  Add({uint64_t{1} << 33, 0}, {{"a", "z"}, {"b", std::string(70000, 'v')}});
  Add({UINT64_MAX, UINT64_MAX}, {{"", std::string("\0", 1)}});
  info_.entries_added = 7;
  info_.max_deleted_id = {1, 901};
  EXPECT_EQ(RoundTrip(encoder_.Finish(info_, {}, true)).size(), 6U);
}

TEST_F(StreamEncoderTest, ManyListpacks) {
  for (uint64_t i = 1; i <= 3000; ++i) {
    Add({1526919030474 + i / 3, i % 3},
        {{"field", std::to_string(i)}, {i % 7 == 0 ? "odd" : "even", "value"}});
  }
  EXPECT_EQ(RoundTrip(encoder_.Finish(info_, {}, true)).size(), 3001U);
}

std::vector<StreamGroupState> Groups() {
  StreamGroupState idle;
  idle.name = "idle";
  StreamGroupState busy;
  busy.name = "busy";
  busy.last_delivered_id = {2, 0};
  busy.entries_read = 2;
  busy.consumers = {{"ann", 1700000000001}, {"bob", 1700000000002}, {"carl", 1700000000003}};
  busy.pending = {
      {{1, 0}, "bob", 1700000000000, 1}, {{1, 5}, "ann", 1700000000004, 70000}, {{2, 0}, "bob", 0, 2}};
  return {busy, idle};  // in Redis' order, by name
}

TEST_F(StreamEncoderTest, Groups) {
  Add({1, 0}, {{"f", "v"}});
  Add({2, 0}, {{"f", "v"}});
  const Rows rows = RoundTrip(encoder_.Finish(info_, Groups(), true));
  EXPECT_EQ(rows.size(), 2U + 1 + 2 + 3 + 3);
  EXPECT_EQ(rows[rows.size() - 2], (test::Row{"consumer", "busy", "carl", "1700000000003", "0"}));
}

// Streams as Redis 5 and 6 store them. Redis 7 computes the missing fields.
TEST_F(StreamEncoderTest, WithoutCounters) {
  Add({1, 0}, {{"f", "v"}});
  Add({2, 0}, {{"f", "v"}});
  const std::string payload = encoder_.Finish(info_, Groups(), false);
  EXPECT_EQ(payload[0], 15);
  const Result<Rows> decoded = test::DecodedRows(payload);
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  redis_.Command({"RESTORE", "key", "0", payload});
  EXPECT_EQ(redis_.Integer({"XLEN", "key"}), 2);
  EXPECT_EQ(test::RedisRows(redis_, "key").size(), decoded.value().size());
}

TEST_F(StreamEncoderTest, AnEmptyStreamWithAGroup) {
  info_.last_id = info_.max_deleted_id = {5, 5};
  info_.entries_added = 9;
  EXPECT_EQ(RoundTrip(encoder_.Finish(info_, Groups(), true)).front(),
            (test::Row{"info", "0", "5-5", "0-0", "5-5", "9"}));
}

}  // namespace
}  // namespace prm::rdb
