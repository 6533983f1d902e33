// The entries that a scan returns, from one key to databases of every type.
#include "source/scan.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

using test::Name;

class ScanTest : public test::ScanFixture {
 protected:
  struct Value {
    std::string dump;
    std::string string;  // empty if it is of another type
    int64_t expiry;
  };

  // DUMP, GET and PEXPIRETIME of every key in the selected database, by a script.
  std::map<std::string, Value> Truth() {
    const test::Reply reply = client_.Command(
        {"EVAL",
         "local all = {} for _, k in ipairs(redis.call('KEYS', '*')) do "
         "local s = redis.call('TYPE', k).ok == 'string' and redis.call('GET', k) or '' "
         "all[#all + 1] = {k, redis.call('DUMP', k), s, redis.call('PEXPIRETIME', k)} end return all",
         "0"});
    std::map<std::string, Value> truth;
    for (size_t i = 0; i < reply->elements; ++i) {
      redisReply** fields = reply->element[i]->element;
      truth[test::Text(fields[0])] = {test::Text(fields[1]), test::Text(fields[2]), fields[3]->integer};
    }
    return truth;
  }

  void ExpectTruth(const std::map<Name, Entry>& entries, int db) {
    client_.Command({"SELECT", std::to_string(db)});
    const auto truth = Truth();
    size_t found = 0;
    for (const auto& [name, entry] : entries) {
      if (name.first != db) continue;
      ++found;
      const auto expected = truth.find(name.second);
      ASSERT_NE(expected, truth.end()) << name.second;
      ASSERT_EQ(entry.state, EntryState::kRead) << name.second;
      const Value& value = expected->second;
      ASSERT_TRUE(entry.payload == (entry.plain ? value.string : value.dump)) << name.second;
      ASSERT_EQ(entry.expires_at_ms.value_or(-1), value.expiry) << name.second;
    }
    EXPECT_EQ(found, truth.size());
  }
};

TEST_F(ScanTest, ReadsEveryKeyOfEveryTypeOnce) {
  for (const char* db : {"0", "3", "11"}) {
    client_.Command({"SELECT", db});
    client_.Command({"EVAL",
                     "for i = 1, ARGV[1], 5 do "
                     "redis.call('SET', 's:' .. i, 'value ' .. i) "
                     "redis.call('RPUSH', 'l:' .. i, 'a', i, 'c') "
                     "redis.call('SADD', 'm:' .. i, i, i + 1) "
                     "redis.call('ZADD', 'z:' .. i, i, 'one', 2.5, 'two') "
                     "redis.call('HSET', 'h:' .. i, 'field', i, 'other', 'x') "
                     "if i % 3 == 0 then redis.call('PEXPIRE', 's:' .. i, 1000000 + i) end "
                     "if i % 4 == 0 then redis.call('PEXPIREAT', 'h:' .. i, 4102444800000 + i) end end",
                     "0", "16667"});
  }
  options_.databases = {11, 0, 3, 0};
  options_.batch_keys = 3000;
  const auto connection = Connect();
  const auto source = Open(*connection);
  std::map<Name, Entry> entries;
  int last_db = 0;
  size_t batches = 0;
  for (Batch batch; Next(*source, batch); ++batches) {
    EXPECT_LE(batch.entries.size(), options_.batch_keys);
    uint64_t bytes = 0;
    for (const Entry& entry : batch.entries) {
      bytes += entry.key.size() + entry.payload.size();
      EXPECT_GE(entry.db, last_db);
      last_db = entry.db;
    }
    EXPECT_EQ(batch.bytes, bytes);
    Take(batch, entries);
  }
  EXPECT_EQ(entries.size(), 3U * 5 * 3334);
  EXPECT_GE(batches, entries.size() / 3000);
  EXPECT_LE(batches, entries.size() / 1500);
  for (const int db : {0, 3, 11}) ExpectTruth(entries, db);
  EXPECT_EQ(source->duplicates(), 0U);
  EXPECT_EQ(filter_.classified, entries.size());
}

TEST_F(ScanTest, KeysAreBytes) {
  const std::vector<std::string> keys = {
      std::string("\0a\0", 3), "", "{tag}:1", "a*b?[c]", "\xff\xfe", "line\r\nbreak", "with \"", "$5",
      std::string(65536, 'k')};
  for (const std::string& key : keys) client_.Command({"SET", key, "value of " + key.substr(0, 10)});
  const auto connection = Connect();
  const auto source = Open(*connection);
  const auto entries = ReadAll(*source);
  EXPECT_EQ(entries.size(), keys.size());
  for (const std::string& key : keys) EXPECT_EQ(entries.count({0, key}), 1U) << key.substr(0, 20);
  ExpectTruth(entries, 0);
}

TEST_F(ScanTest, EmptyDatabasesEndAtOnce) {
  options_.databases = {0, 1, 2};
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  ASSERT_TRUE(Next(*source, batch));  // the position moved
  EXPECT_TRUE(batch.entries.empty());
  EXPECT_NE(batch.position.find("db=2 cursor=end"), std::string::npos);
  EXPECT_FALSE(Next(*source, batch));
  EXPECT_FALSE(Next(*source, batch));
}

TEST_F(ScanTest, TheFilterDecides) {
  Populate(3000);
  filter_.decide = [](int, Bytes key) {
    const char last = key.back();
    return last < '3' ? Interest::kIgnore : last < '6' ? Interest::kNameOnly : Interest::kRead;
  };
  const auto connection = Connect();
  const auto entries = ReadAll(*Open(*connection));
  EXPECT_EQ(entries.size(), 2100U);
  for (const auto& [name, entry] : entries) {
    const bool name_only = name.second.back() < '6';
    ASSERT_EQ(entry.state, name_only ? EntryState::kNameOnly : EntryState::kRead) << name.second;
    ASSERT_EQ(entry.payload.empty(), name_only);
  }
  EXPECT_EQ(filter_.classified, 3000U);
}

// Small batches, so that positions are stored.
TEST_F(ScanTest, ABatchEndsEvenIfTheFilterWantsNothing) {
  Populate(250000, 1);
  filter_.decide = [](int, Bytes) { return Interest::kIgnore; };
  const auto connection = Connect();
  const auto source = Open(*connection);
  std::set<std::string> positions;
  for (Batch batch; Next(*source, batch);) {
    EXPECT_TRUE(batch.entries.empty());
    EXPECT_TRUE(positions.insert(batch.position).second);
  }
  EXPECT_EQ(positions.size(), 3U);
}

TEST_F(ScanTest, LargeValuesAreNotRead) {
  client_.Command({"SET", "large", std::string(200000, 'x')});
  client_.Command({"SET", "small", "x"});
  options_.max_value_bytes = 100000;
  const auto connection = Connect();
  const auto entries = ReadAll(*Open(*connection));
  const Entry& large = entries.at({0, "large"});
  EXPECT_EQ(large.state, EntryState::kTooLarge);
  EXPECT_EQ(large.size, static_cast<uint64_t>(client_.Integer({"MEMORY", "USAGE", "large"})));
  EXPECT_TRUE(large.payload.empty());
  EXPECT_EQ(entries.at({0, "small"}).state, EntryState::kRead);
}

TEST_F(ScanTest, ABatchKeepsToItsBytes) {
  Populate(300, 10000);
  client_.Command({"SET", "key:alone", std::string(1 << 20, '\x07') + "random"});
  client_.Command({"CONFIG", "SET", "rdbcompression", "no"});  // DUMP compresses
  options_.batch_bytes = 100000;
  const auto connection = Connect();
  const auto source = Open(*connection);
  std::map<Name, Entry> entries;
  for (Batch batch; Next(*source, batch);) {
    EXPECT_TRUE(batch.bytes <= options_.batch_bytes || batch.entries.size() == 1) << batch.bytes;
    Take(batch, entries);
  }
  EXPECT_EQ(entries.size(), 301U);
  ExpectTruth(entries, 0);
}

// While the caller stores a batch, Redis prepares the next.
TEST_F(ScanTest, WorksAhead) {
  Populate(20000);
  options_.batch_keys = 2000;
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  ASSERT_TRUE(Next(*source, batch));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_GE(Calls("getrange"), static_cast<long>(batch.entries.size()) + 1500);
}

TEST_F(ScanTest, RefusesBadOptions) {
  const auto connection = Connect();
  const auto code = [&](const std::string& position) {
    const auto source = ScanSource::Open(*connection, options_, filter_, position);
    return source.ok() ? std::optional<ErrorCode>() : source.error().code;
  };
  EXPECT_EQ(code(""), std::nullopt);
  EXPECT_EQ(code("nonsense"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code("run_id=- db=7 cursor=1"), ErrorCode::kInvalidArgument);  // not among the databases
  options_.databases = {};
  EXPECT_EQ(code(""), ErrorCode::kInvalidArgument);
  options_.databases = {-1};
  EXPECT_EQ(code(""), ErrorCode::kInvalidArgument);
}

TEST_F(ScanTest, ADatabaseThatDoesNotExistIsAnError) {
  options_.databases = {0, 99};
  Populate(10);
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  const auto next = source->Next(batch);
  ASSERT_FALSE(next.ok());
  EXPECT_EQ(next.error().code, ErrorCode::kServerError);
  EXPECT_EQ(next.error().detail, "ERR DB index is out of range");
}

// Redis before 7.0 has no PEXPIRETIME.
class ScanWithoutPexpiretimeTest : public test::ScanFixture {
 protected:
  ScanWithoutPexpiretimeTest() : ScanFixture({"--rename-command", "PEXPIRETIME", "ORIGINAL"}) {}
};

TEST_F(ScanWithoutPexpiretimeTest, ComputesTheExpiry) {
  client_.Command({"EVAL",
                   "for i = 1, 5000 do redis.call('SET', 'key:' .. i, i) "
                   "if i % 2 == 0 then redis.call('PEXPIRE', 'key:' .. i, 1000000 + i * 1000) end end",
                   "0"});
  const auto connection = Connect();
  const auto entries = ReadAll(*Open(*connection));
  ASSERT_EQ(entries.size(), 5000U);
  for (int i = 1; i <= 5000; ++i) {
    const std::string key = "key:" + std::to_string(i);
    const Entry& entry = entries.at({0, key});
    ASSERT_EQ(entry.state, EntryState::kRead);
    ASSERT_NEAR(entry.expires_at_ms.value_or(-1), client_.Integer({"ORIGINAL", key}), 1000) << key;
  }
}

}  // namespace
}  // namespace prm::source
