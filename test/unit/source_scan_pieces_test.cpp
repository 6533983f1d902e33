// Values that are read in pieces: those that are too large for one reply, and all if DUMP cannot be used.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lib/cpp/memory_spool.h"
#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/scan_fixture.h"
#include "rdb/dump.h"

namespace prm::source {
namespace {

using test::Name;
using test::Row;
using test::Rows;

// Commands that read a piece, by the type that they are for.
const std::map<std::string, std::string> kCommandOf = {{"string", "GETRANGE"}, {"list", "LRANGE"},
                                                       {"set", "SSCAN"},       {"hash", "HSCAN"},
                                                       {"zset", "ZREVRANGE"},  {"stream", "XRANGE"}};

class ScanPiecesTest : public test::ScanFixture {
 protected:
  ScanPiecesTest() : ScanPiecesTest(std::vector<std::string>()) {}
  explicit ScanPiecesTest(const std::vector<std::string>& arguments) : ScanFixture(arguments) {
    options_.max_reply_bytes = 2000;
  }

  std::map<Name, Entry> Scan() {
    const auto connection = Connect();
    return ReadAll(*Open(*connection));
  }

  // A key of each type with `count` elements of 90 bytes.
  void Fill(int count) {
    client_.Command(
        {"EVAL",
         "for i = 1, ARGV[1] do local v = string.rep('v', 80) .. string.format('%010d', i) "
         "redis.call('APPEND', 'string', v) redis.call('RPUSH', 'list', v) "
         "redis.call('SADD', 'set', v) redis.call('HSET', 'hash', 'field' .. i, v) "
         "redis.call('ZADD', 'zset', i % 7 / 3, v) redis.call('XADD', 'stream', i .. '-1', 'f', v) end",
         "0", std::to_string(count)});
  }

  void ExpectSame(const Entry& entry) {
    ASSERT_EQ(entry.state, EntryState::kRead) << entry.key;
    const Result<Rows> decoded = test::DecodedRows(DumpOf(entry).value());
    ASSERT_TRUE(decoded.ok()) << entry.key << ": " << decoded.error().message;
    EXPECT_EQ(Timeless(decoded.value()), Timeless(test::RedisRows(client_, entry.key))) << entry.key;
  }

  // Redis tells the times of groups as ages when they are read in pieces: a test may be slow.
  static Rows Timeless(Rows rows) {
    for (Row& row : rows) {
      const size_t time = row.front() == "consumer" ? 3 : row.front() == "pending" ? 4 : 0;
      if (time > 0 && row.size() > time) row[time] = std::to_string((std::stoll(row[time]) + 50000) / 100000);
    }
    return rows;
  }

  void LogInWithout(const std::vector<std::string>& commands) {
    std::vector<std::string> setuser = {"ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@all"};
    for (const std::string& command : commands) setuser.push_back("-" + command);
    client_.Command(setuser);
    connection_options_.username = "reader";
    connection_options_.password = "s3cret";
  }

  // Acts before every command that reads a piece of the type's key, at most `times`.
  std::map<Name, Entry> ScanWhileWriting(const std::string& type, int times,
                                         const std::vector<std::string>& write) {
    writes_ = 0;
    return ScanWith([&, last = std::string()](const std::vector<Arguments>& queue) mutable {
      const Arguments& command = queue[0];
      // The first piece of a reading is left alone, so that the write comes between two pieces.
      const bool begins = last == "TYPE" || last == "STRLEN" || last == "LLEN" || last == "SCARD" ||
                          last == "HLEN" || last == "ZCARD";
      last = command[0];
      if (begins || command[0] != kCommandOf.at(type) || command[1] != type || writes_ >= times) return;
      ++writes_;
      std::vector<std::string> one = write;
      if (one.back() == "new") one.back() += std::to_string(writes_);
      client_.Command(one);
    });
  }

  int writes_ = 0;
};

// Commands that change a key of each type but not its number of elements; and commands that change that too.
std::map<std::string, std::vector<std::string>> SameLength() {
  return {{"string", {"SETRANGE", "string", "0", "new"}},
          {"list", {"LSET", "list", "0", "new"}},
          {"hash", {"HSET", "hash", "field1", "new"}},
          {"zset", {"ZINCRBY", "zset", "100", "new"}},
          {"set", {"SADD", "set", "new"}},
          {"stream", {"XADD", "stream", "*", "f", "new"}}};
}

class ScanEncodingsTest : public ScanPiecesTest {
 protected:
  ScanEncodingsTest() : ScanPiecesTest(test::SampleServerArguments()) {}
};

TEST_F(ScanEncodingsTest, EveryTypeInEveryEncoding) {
  options_.max_reply_bytes = 1;
  options_.bytes_in_flight = 300;
  for (const test::Sample& sample : test::Samples()) {
    SCOPED_TRACE(sample.name);
    test::DumpSample(client_, sample);
    const long before = Calls("dump");
    const auto entries = Scan();
    EXPECT_EQ(Calls("dump"), before);
    ASSERT_EQ(entries.size(), 1U);
    const Entry& entry = entries.begin()->second;
    ASSERT_NO_FATAL_FAILURE(ExpectSame(entry));
    const Rows original = test::RedisRows(client_, test::kSampleKey);
    client_.Command({"RESTORE", "copy", "0", DumpOf(entry).value(), "REPLACE"});
    EXPECT_EQ(Timeless(test::RedisRows(client_, "copy")), Timeless(original));
  }
}

TEST_F(ScanPiecesTest, LargeValuesOfEveryType) {
  Fill(3000);
  client_.Command({"PEXPIREAT", "hash", "4102444800123"});
  client_.Command({"SET", "small", "value"});
  client_.Command({"RPUSH", "few", "a", "b"});
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 8U);
  for (const auto& [name, entry] : entries) ASSERT_NO_FATAL_FAILURE(ExpectSame(entry));
  EXPECT_EQ(entries.at({0, "hash"}).expires_at_ms, 4102444800123);
  EXPECT_EQ(entries.at({0, "list"}).expires_at_ms, std::nullopt);
  EXPECT_EQ(Calls("dump"), 1);  // of the small list
  EXPECT_GT(Calls("lrange"), 100);
}

class ScanLargeTest : public ScanPiecesTest {
 protected:
  ScanLargeTest() {
    options_.max_reply_bytes = 1 << 20;
    options_.make_spool = [] { return std::make_unique<test::MemorySpool>(); };
    Fill(50000);  // 4.5 MB each
  }
};

TEST_F(ScanLargeTest, CollectionsGoToSpools) {
  for (const bool watches : {true, false}) {
    SCOPED_TRACE(watches);
    if (!watches) LogInWithout({"watch"});
    const auto entries = Scan();
    ASSERT_EQ(entries.size(), 6U);
    for (const auto& [name, entry] : entries) {
      ASSERT_NO_FATAL_FAILURE(ExpectSame(entry));
      EXPECT_EQ(entry.large == nullptr, name.second == "string" || name.second == "stream") << name.second;
      EXPECT_EQ(entry.payload.empty(), entry.large != nullptr);
      EXPECT_GT(PayloadSize(entry), rdb::kLargePayload);
    }
  }
}

// Read twice, they are compared by all their bytes.
TEST_F(ScanLargeTest, OneThatChangesIsReadAgain) {
  LogInWithout({"watch"});
  const auto writes = SameLength();
  for (const std::string type : {"list", "hash"}) {
    SCOPED_TRACE(type);
    const auto entries = ScanWhileWriting(type, 1, writes.at(type));
    EXPECT_EQ(writes_, 1);
    ASSERT_NO_FATAL_FAILURE(ExpectSame(entries.at({0, type})));
  }
  const auto given_up = ScanWhileWriting("hash", 1 << 30, {"HINCRBY", "hash", "counter", "1"});
  EXPECT_EQ(given_up.at({0, "hash"}).state, EntryState::kChanging);
  EXPECT_EQ(given_up.at({0, "hash"}).large, nullptr);
}

// 3000 elements of 90 bytes, and 16 for each in a reply.
TEST_F(ScanPiecesTest, RepliesAreSmall) {
  Fill(3000);
  const auto connection = Connect();
  size_t largest = 0;
  for (const auto& [name, entry] : ReadAll(*Open(*connection)))
    largest = std::max(largest, entry.payload.size());
  EXPECT_GE(largest, 270000U);
  // The client's output buffer, as Redis remembers its peak: the 64 elements of a first piece at most.
  const std::string clients = client_.String({"CLIENT", "LIST"});
  const size_t at = clients.find("rbp=", clients.find("name=pg_redis_migrate"));
  ASSERT_NE(at, std::string::npos);
  EXPECT_LE(std::atol(clients.c_str() + at + 4), 16384);
}

TEST_F(ScanPiecesTest, WhereDumpIsForbiddenEverythingIsReadSo) {
  options_.max_reply_bytes = 16 << 20;
  Fill(500);
  client_.Command({"EVAL", "for i = 1, 3000 do redis.call('HSET', 'h:' .. i, 'f', i, 'g', 'x') end", "0"});
  LogInWithout({"dump"});
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 3006U);
  for (const auto& [name, entry] : entries) ASSERT_NO_FATAL_FAILURE(ExpectSame(entry));
  // Many in one transaction: no more round trips than one.
  EXPECT_LE(Calls("exec"), 2 + 3006 / 100);
}

TEST_F(ScanPiecesTest, OneThatChangesIsReadAgain) {
  for (const auto& [type, write] : SameLength()) {
    SCOPED_TRACE(type);
    client_.Command({"FLUSHALL"});
    Fill(1000);
    const auto entries = ScanWhileWriting(type, 2, write);
    EXPECT_EQ(writes_, 2);
    ASSERT_EQ(entries.size(), 6U);
    ASSERT_NO_FATAL_FAILURE(ExpectSame(entries.at({0, type})));
  }
}

TEST_F(ScanPiecesTest, OneThatAlwaysChangesIsGivenUp) {
  std::map<std::string, std::vector<std::string>> appending = {{"string", {"APPEND", "string", "x"}},
                                                               {"list", {"RPUSH", "list", "x"}}};
  for (const auto& writes : {SameLength(), appending}) {
    for (const auto& [type, write] : writes) {
      SCOPED_TRACE(type);
      client_.Command({"FLUSHALL"});
      Fill(1000);
      const auto entries = ScanWhileWriting(type, 1 << 30, write);
      EXPECT_GE(writes_, 5);
      for (const auto& [name, entry] : entries) {
        ASSERT_EQ(entry.state, name.second == type ? EntryState::kChanging : EntryState::kRead)
            << name.second;
        EXPECT_EQ(entry.payload.empty(), name.second == type);
      }
    }
  }
}

// Nothing is watched: a value is read until it is the same twice.
TEST_F(ScanPiecesTest, WithoutTheRightToWatch) {
  for (const std::string right : {"watch", "multi", "exec"}) {
    LogInWithout({right});
    for (const auto& [type, write] : SameLength()) {
      SCOPED_TRACE(right + " " + type);
      client_.Command({"FLUSHALL"});
      Fill(1000);
      auto entries = Scan();
      ASSERT_EQ(entries.size(), 6U);
      for (const auto& [name, entry] : entries) ASSERT_NO_FATAL_FAILURE(ExpectSame(entry));
      entries = ScanWhileWriting(type, 1, write);
      EXPECT_EQ(writes_, 1);
      ASSERT_NO_FATAL_FAILURE(ExpectSame(entries.at({0, type})));
    }
  }
  client_.Command({"FLUSHALL"});
  Fill(1000);
  int n = 0;
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    if (queue[0][0] == "HSCAN") client_.Command({"HSET", "hash", "field1", std::to_string(++n)});
  });
  EXPECT_EQ(entries.at({0, "hash"}).state, EntryState::kChanging);
}

TEST_F(ScanPiecesTest, DeletedExpiredAndReplaced) {
  for (const auto& [type, command] : kCommandOf) {
    SCOPED_TRACE(type);
    client_.Command({"FLUSHALL"});
    Fill(1000);
    EXPECT_EQ(ScanWhileWriting(type, 1, {"DEL", type}).at({0, type}).state, EntryState::kVanished);
    client_.Command({"FLUSHALL"});
    Fill(1000);
    EXPECT_EQ(ScanWhileWriting(type, 1, {"PEXPIREAT", type, "1000"}).at({0, type}).state,
              EntryState::kVanished);
    client_.Command({"FLUSHALL"});
    Fill(1000);
    const std::string other = type == "hash" ? "list" : "hash";
    ASSERT_NO_FATAL_FAILURE(
        ExpectSame(ScanWhileWriting(type, 1, {"COPY", other, type, "REPLACE"}).at({0, type})));
    client_.Command({"FLUSHALL"});
    Fill(1000);
    const auto entries = ScanWhileWriting(type, 1, {"PEXPIREAT", other, "4102444800123"});
    EXPECT_EQ(entries.at({0, other}).expires_at_ms.value_or(4102444800123), 4102444800123);
  }
}

TEST_F(ScanPiecesTest, TheExpiryIsThatOfTheValue) {
  Fill(1000);
  const auto entries = ScanWhileWriting("list", 1, {"PEXPIREAT", "list", "4102444800123"});
  EXPECT_EQ(entries.at({0, "list"}).expires_at_ms, 4102444800123);
}

// A value of unknown size may have any size.
TEST_F(ScanPiecesTest, WithoutMemoryUsage) {
  Fill(3000);
  LogInWithout({"memory"});
  options_.max_reply_bytes = 16 << 20;
  auto entries = Scan();
  for (const auto& [name, entry] : entries) ASSERT_NO_FATAL_FAILURE(ExpectSame(entry));
  EXPECT_EQ(Calls("dump"), 1);  // of the string, whose size STRLEN tells
  options_.max_value_bytes = 100000;
  entries = Scan();
  ASSERT_EQ(entries.size(), 6U);
  for (const auto& [name, entry] : entries) {
    EXPECT_EQ(entry.state, EntryState::kTooLarge) << name.second;
    EXPECT_GT(entry.size, 100000U) << name.second;
    EXPECT_TRUE(entry.payload.empty());
  }
}

// The scan then uses DUMP, whatever the size.
TEST_F(ScanPiecesTest, WithoutTheCommandsForPieces) {
  Fill(1000);
  LogInWithout({"hscan", "lrange", "xinfo"});
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 6U);
  for (const auto& [name, entry] : entries) ASSERT_NO_FATAL_FAILURE(ExpectSame(entry));
  EXPECT_EQ(Calls("dump"), 3);
}

TEST_F(ScanPiecesTest, WithNeitherTheErrorNamesDump) {
  Fill(10);
  LogInWithout({"hscan", "dump"});
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  const auto next = source->Next(batch);
  ASSERT_FALSE(next.ok());
  EXPECT_EQ(next.error().code, ErrorCode::kPermissionDenied);
  EXPECT_NE(next.error().message.find("DUMP"), std::string::npos) << next.error().message;
}

TEST_F(ScanPiecesTest, StreamsWithGroups) {
  Fill(500);
  client_.Command({"XGROUP", "CREATE", "stream", "idle", "0"});
  client_.Command({"XGROUP", "CREATE", "stream", "busy", "0", "ENTRIESREAD", "0"});
  client_.Command({"XREADGROUP", "GROUP", "busy", "ann", "COUNT", "200", "STREAMS", "stream", ">"});
  client_.Command({"XREADGROUP", "GROUP", "busy", "bob", "COUNT", "100", "STREAMS", "stream", ">"});
  client_.Command({"XACK", "stream", "busy", "1-1", "7-1"});
  client_.Command({"XCLAIM", "stream", "busy", "carl", "0", "9-1"});
  client_.Command({"XGROUP", "CREATECONSUMER", "stream", "busy", "dora"});
  client_.Command({"XDEL", "stream", "9-1", "500-1", "12-1"});
  const auto entries = Scan();
  ASSERT_NO_FATAL_FAILURE(ExpectSame(entries.at({0, "stream"})));
  client_.Command({"RESTORE", "copy", "0", DumpOf(entries.at({0, "stream"})).value()});
  EXPECT_EQ(client_.Command({"XPENDING", "copy", "busy"})->element[0]->integer, 298);
}

// More pending entries than a page of XPENDING has.
TEST_F(ScanPiecesTest, StreamsWithManyPendingEntries) {
  client_.Command({"EVAL",
                   "for i = 1, 21000 do redis.call('XADD', 'stream', '5-' .. i, 'f', 'v') end "
                   "redis.call('XGROUP', 'CREATE', 'stream', 'g', '0')",
                   "0"});
  client_.Command({"XREADGROUP", "GROUP", "g", "c", "COUNT", "21000", "STREAMS", "stream", ">"});
  const auto entries = Scan();
  client_.Command({"RESTORE", "copy", "0", DumpOf(entries.at({0, "stream"})).value()});
  EXPECT_EQ(client_.Command({"XPENDING", "copy", "g"})->element[0]->integer, 21000);
}

// The only types without commands for their parts are those of modules.
TEST_F(ScanPiecesTest, TypesOfModules) {
  Entry entry;
  const PieceLimits limits{1000, 1000, {}, {}};
  EXPECT_EQ(PieceReader::ForType("ReJSON-RL", entry, 0, limits), nullptr);
  for (const auto& [type, command] : kCommandOf)
    EXPECT_NE(PieceReader::ForType(type, entry, 0, limits), nullptr);
}

// DUMP is GET under another name, so that values can stand for payloads of a future version.
class ScanUnknownVersionTest : public ScanPiecesTest {
 protected:
  ScanUnknownVersionTest()
      : ScanPiecesTest({"--rename-command", "DUMP", "ORIGINAL", "--rename-command", "GET", "DUMP"}) {}
};

TEST_F(ScanUnknownVersionTest, IsReadInPieces) {
  options_.max_reply_bytes = 16 << 20;
  for (int i = 0; i < 20; ++i) {
    std::string value(3000 + i, 'x');
    value[value.size() - 10] = 99;  // the version's low byte
    value[value.size() - 9] = 0;
    client_.Command({"SET", "key:" + std::to_string(i), value});
  }
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 20U);
  for (const auto& [name, entry] : entries) {
    EXPECT_TRUE(entry.plain);
    EXPECT_EQ(entry.payload, client_.String({"DUMP", name.second}));
  }
}

// The server behaves as before Redis 7.0.
class ScanPiecesWithoutPexpiretimeTest : public ScanPiecesTest {
 protected:
  ScanPiecesWithoutPexpiretimeTest() : ScanPiecesTest({"--rename-command", "PEXPIRETIME", "ORIGINAL"}) {}
};

TEST_F(ScanPiecesWithoutPexpiretimeTest, ComputesTheExpiry) {
  Fill(1000);
  client_.Command({"PEXPIREAT", "zset", "4102444800123"});
  for (const bool watches : {true, false}) {
    if (!watches) LogInWithout({"watch"});
    const auto entries = Scan();
    for (const auto& [name, entry] : entries) ASSERT_NO_FATAL_FAILURE(ExpectSame(entry));
    EXPECT_NEAR(static_cast<double>(entries.at({0, "zset"}).expires_at_ms.value_or(0)), 4102444800123, 1000);
  }
}

}  // namespace
}  // namespace prm::source
