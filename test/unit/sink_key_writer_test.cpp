#include "sink/key_writer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_cluster.h"
#include "lib/cpp/redis_server.h"
#include "rdb/dump.h"
#include "rdb/encoder.h"

namespace prm::sink {
namespace {

using source::Entry;
using test::kSampleKey;
using test::RedisRows;
using test::Rows;

constexpr int64_t kNowMs = 1700000000000;
constexpr int64_t kLaterMs = 4102444800123;

class KeyWriterTest : public testing::Test {
 protected:
  KeyWriterTest()
      : from_server_(test::SampleServerArguments()),
        to_server_(test::SampleServerArguments()),
        from_(from_server_.port()),
        to_(to_server_.port()) {
    // A user of a service that forbids RESTORE.
    to_.Command({"ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-@dangerous", "-restore"});
  }

  std::unique_ptr<redis::Connection> Connect(const std::string& user = {}, int port = 0) {
    redis::ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = port != 0 ? port : to_server_.port();
    options.username = user;
    options.password = user.empty() ? "" : "secret";
    auto connection = redis::Connection::Open(options, waiter_);
    if (!connection.ok()) throw std::runtime_error(connection.error().message);
    return std::move(connection.value());
  }

  static Entry Of(std::string key, std::string payload, std::optional<int64_t> expires_at_ms = {},
                  int db = 0) {
    Entry entry;
    entry.db = db;
    entry.key = std::move(key);
    entry.payload = std::move(payload);
    entry.expires_at_ms = expires_at_ms;
    return entry;
  }

  // Writes with a new writer, and expects that this works.
  std::vector<WrittenKey> Write(const std::vector<Entry>& entries, const WriterOptions& options = {},
                                const std::string& user = {}) {
    const auto connection = Connect(user);
    return Write(*connection, entries, options);
  }
  std::vector<WrittenKey> Write(redis::Connection& connection, const std::vector<Entry>& entries,
                                const WriterOptions& options) {
    auto writer = KeyWriter::Open(connection, options);
    if (!writer.ok()) throw std::runtime_error(writer.error().message);
    std::vector<WrittenKey> written;
    const Status status = writer.value().Write(Pointers(entries), kNowMs, written);
    if (!status.ok()) throw std::runtime_error(status.error().message + ": " + status.error().detail);
    by_commands_ = writer.value().by_commands();
    return written;
  }

  static std::vector<const Entry*> Pointers(const std::vector<Entry>& entries) {
    std::vector<const Entry*> pointers;
    for (const Entry& entry : entries) pointers.push_back(&entry);
    return pointers;
  }

  // Without what the commands of streams cannot write; and without the sign of zero, which Redis itself loses
  // where it packs scores.
  static Rows Comparable(Rows rows, bool with_times) {
    for (test::Row& row : rows) {
      if (row[0] == "consumer" && !with_times) row[3].clear();
      if (row.back() == "-0x0p+0") row.back() = "0x0p+0";
    }
    return rows;
  }

  void ExpectSame(const std::string& key, bool by_commands) {
    const Rows expected = RedisRows(from_, key);
    EXPECT_EQ(Comparable(RedisRows(to_, key), !by_commands), Comparable(expected, !by_commands));
    if (Comparable(expected, true) == expected) {
      EXPECT_EQ(to_.Strings({"DEBUG", "DIGEST-VALUE", key}), from_.Strings({"DEBUG", "DIGEST-VALUE", key}));
    }
  }

  test::RedisServer from_server_;
  test::RedisServer to_server_;
  test::RedisClient from_;
  test::RedisClient to_;
  test::PollWaiter waiter_;
  uint64_t by_commands_ = 0;
};

TEST_F(KeyWriterTest, EveryEncodingByRestore) {
  for (const test::Sample& sample : test::Samples()) {
    SCOPED_TRACE(sample.name);
    to_.Command({"FLUSHALL"});
    const std::string payload = test::DumpSample(from_, sample);
    from_.Command({"PEXPIREAT", kSampleKey, std::to_string(kLaterMs)});
    const auto written = Write({Of(kSampleKey, payload, kLaterMs)});
    EXPECT_EQ(written[0].fate, KeyFate::kRestored) << written[0].message;
    EXPECT_EQ(by_commands_, 0U);
    ExpectSame(kSampleKey, false);
    EXPECT_EQ(to_.Integer({"PEXPIRETIME", kSampleKey}), kLaterMs);
    EXPECT_EQ(to_.Integer({"DBSIZE"}), 1);
  }
}

TEST_F(KeyWriterTest, EveryEncodingByCommands) {
  size_t incomplete = 0;
  for (const test::Sample& sample : test::Samples()) {
    SCOPED_TRACE(sample.name);
    to_.Command({"FLUSHALL"});
    const std::string payload = test::DumpSample(from_, sample);
    from_.Command({"PEXPIREAT", kSampleKey, std::to_string(kLaterMs)});
    const auto written = Write({Of(kSampleKey, payload, kLaterMs)}, {}, "limited");
    EXPECT_EQ(written[0].fate, KeyFate::kRestored) << written[0].message;
    EXPECT_EQ(by_commands_, 1U);
    if (written[0].reason == "without_pending") {
      ++incomplete;
    } else {
      ExpectSame(kSampleKey, true);
    }
    EXPECT_EQ(to_.Integer({"PEXPIRETIME", kSampleKey}), kLaterMs);
    EXPECT_EQ(to_.Integer({"DBSIZE"}), 1) << "nothing is left of the temporary name";
  }
  EXPECT_LE(incomplete, 1U);
}

// A pending entry whose stream entry is deleted: XCLAIM does not take it, and that is told.
TEST_F(KeyWriterTest, LostPendingEntriesAreTold) {
  for (const char* const id : {"1-1", "2-1"}) from_.Command({"XADD", "s", id, "f", "v"});
  from_.Command({"XGROUP", "CREATE", "s", "g", "0"});
  from_.Command({"XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"});
  from_.Command({"XDEL", "s", "1-1"});
  const auto written = Write({Of("s", from_.String({"DUMP", "s"}))}, {}, "limited");
  EXPECT_EQ(written[0].fate, KeyFate::kRestored) << written[0].message;
  EXPECT_EQ(written[0].reason, "without_pending");
  EXPECT_EQ(to_.Integer({"XLEN", "s"}), 1);
}

TEST_F(KeyWriterTest, StreamsWithoutEntries) {
  from_.Command({"XGROUP", "CREATE", "never", "g", "0", "MKSTREAM"});
  from_.Command({"XADD", "emptied", "5-7", "f", "v"});
  from_.Command({"XDEL", "emptied", "5-7"});
  const auto written =
      Write({Of("never", from_.String({"DUMP", "never"})), Of("emptied", from_.String({"DUMP", "emptied"}))},
            {}, "limited");
  for (const WrittenKey& key : written) EXPECT_EQ(key.fate, KeyFate::kRestored) << key.message;
  for (const char* const key : {"never", "emptied"}) EXPECT_EQ(RedisRows(to_, key), RedisRows(from_, key));
}

// More than one command holds, and more than what may be under way.
TEST_F(KeyWriterTest, LargeValuesInPieces) {
  from_.Command(
      {"EVAL",
       "for i = 1, 30000 do redis.call('HSET', 'h', 'field' .. i, string.rep('v', 100) .. i) "
       "redis.call('RPUSH', 'l', i .. string.rep('w', 50)) redis.call('ZADD', 'z', i / 7, 'm' .. i) end "
       "redis.call('SET', 'string', string.rep('x', 9000000))",
       "0"});
  WriterOptions options;
  options.bytes_in_flight = 1 << 20;
  std::vector<Entry> entries;
  for (const char* const key : {"h", "l", "z", "string"})
    entries.push_back(Of(key, from_.String({"DUMP", key})));
  for (const WrittenKey& key : Write(entries, options, "limited"))
    EXPECT_EQ(key.fate, KeyFate::kRestored) << key.message;
  for (const Entry& entry : entries) {
    EXPECT_EQ(to_.Strings({"DEBUG", "DIGEST-VALUE", entry.key}),
              from_.Strings({"DEBUG", "DIGEST-VALUE", entry.key}));
    EXPECT_EQ(to_.Integer({"PTTL", entry.key}), -1) << "the guard of the temporary name does not stay";
  }
  EXPECT_EQ(to_.Integer({"DBSIZE"}), 4);
}

TEST_F(KeyWriterTest, WhatExistsStaysUnlessReplaced) {
  for (const std::string user : {"", "limited"}) {
    SCOPED_TRACE(user);
    to_.Command({"FLUSHALL"});
    to_.Command({"SET", "a", "old"});
    const std::vector<Entry> entries = {Of("a", rdb::EncodeStringDump("new")),
                                        Of("b", rdb::EncodeStringDump("b"), kNowMs)};
    auto written = Write(entries, {}, user);
    EXPECT_EQ(written[0].fate, KeyFate::kExists);
    EXPECT_EQ(written[1].fate, KeyFate::kExpired);
    EXPECT_EQ(to_.String({"GET", "a"}), "old");
    WriterOptions options;
    options.replaces = true;
    options.is_dry = true;
    EXPECT_EQ(Write(entries, options, user)[0].fate, KeyFate::kRestored);
    EXPECT_EQ(to_.String({"GET", "a"}), "old") << "a dry run writes nothing";
    options.is_dry = false;
    EXPECT_EQ(Write(entries, options, user)[0].fate, KeyFate::kRestored);
    EXPECT_EQ(to_.String({"GET", "a"}), "new");
    EXPECT_EQ(to_.Integer({"DBSIZE"}), 1);
  }
}

// A server that has not the version of a payload, or takes it and then not its type, gets commands.
TEST_F(KeyWriterTest, VersionsThatTheServerDoesNotTake) {
  from_.Command({"SET", "a", "value"});
  const std::string newer = test::Framed(test::Body(from_.String({"DUMP", "a"})), 15);
  auto written = Write({Of("newer", newer), Of("older", rdb::EncodeStringDump("value"))});
  EXPECT_EQ(written[0].fate, KeyFate::kRestored) << written[0].message;
  EXPECT_EQ(written[1].fate, KeyFate::kRestored) << written[1].message;
  EXPECT_EQ(by_commands_, 1U);
  EXPECT_EQ(to_.String({"GET", "newer"}), "value");
}

TEST_F(KeyWriterTest, WhatNobodyCanReadFailsAlone) {
  std::string corrupt = rdb::EncodeStringDump("value");
  corrupt[3] = static_cast<char>(corrupt[3] ^ 1);
  for (const std::string user : {"", "limited"}) {
    to_.Command({"FLUSHALL"});
    const auto written =
        Write({Of("corrupt", corrupt), Of("short", "x"), Of("good", rdb::EncodeStringDump("v"))}, {}, user);
    EXPECT_EQ(written[0].fate, KeyFate::kFailed);
    EXPECT_EQ(written[0].reason, "corrupt_payload");
    EXPECT_EQ(written[1].fate, KeyFate::kFailed);
    EXPECT_EQ(written[2].fate, KeyFate::kRestored);
    EXPECT_EQ(to_.Integer({"DBSIZE"}), 1);
  }
}

TEST_F(KeyWriterTest, DatabasesThatAreNotThere) {
  const auto written = Write({Of("a", rdb::EncodeStringDump("0")), Of("a", rdb::EncodeStringDump("9"), {}, 9),
                              Of("a", rdb::EncodeStringDump("x"), {}, 99)});
  EXPECT_EQ(written[0].fate, KeyFate::kRestored);
  EXPECT_EQ(written[1].fate, KeyFate::kRestored);
  EXPECT_EQ(written[2].fate, KeyFate::kFailed);
  EXPECT_EQ(written[2].reason, "no_such_database");
  EXPECT_EQ(to_.String({"GET", "a"}), "0");
  to_.Command({"SELECT", "9"});
  EXPECT_EQ(to_.String({"GET", "a"}), "9");
}

// No key would fare better: that ends it, and nothing is left behind.
TEST_F(KeyWriterTest, AFullServerEndsIt) {
  to_.Command({"CONFIG", "SET", "maxmemory", "1"});
  for (const std::string user : {"", "limited"}) {
    const auto connection = Connect(user);
    auto writer = KeyWriter::Open(*connection, {});
    ASSERT_TRUE(writer.ok());
    const std::vector<Entry> entries = {Of("a", rdb::EncodeStringDump("v"))};
    std::vector<WrittenKey> written;
    const Status status = writer.value().Write(Pointers(entries), kNowMs, written);
    ASSERT_FALSE(status.ok());
    EXPECT_NE(status.error().detail.find("OOM"), std::string::npos) << status.error().detail;
    EXPECT_EQ(to_.Integer({"DBSIZE"}), 0);
  }
}

// Key patterns of the ACL: the keys outside fail, the others do not, also by commands.
TEST_F(KeyWriterTest, KeysThatTheUserMayNotWrite) {
  to_.Command({"ACL", "SETUSER", "apart", "on", ">secret", "~mine:*", "+@all", "-restore"});
  const auto written =
      Write({Of("mine:1", rdb::EncodeStringDump("v")), Of("other", rdb::EncodeStringDump("v"))}, {}, "apart");
  EXPECT_EQ(written[0].fate, KeyFate::kRestored) << written[0].message;
  EXPECT_EQ(written[1].fate, KeyFate::kFailed);
  EXPECT_EQ(written[1].reason, "noperm");
}

TEST(KeyWriterCluster, SlotsOfTemporaryNames) {
  test::RedisCluster cluster(2);
  test::PollWaiter waiter;
  std::vector<std::string> names = {"plain", "user:{tag}:1", "odd}name", "{}empty", "open{"};
  for (size_t node = 0; node < 2; ++node) {
    cluster.client(node).Command({"ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-restore"});
    redis::ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = cluster.server(node).port();
    options.username = "limited";
    options.password = "secret";
    auto connection = redis::Connection::Open(options, waiter);
    ASSERT_TRUE(connection.ok());
    WriterOptions writer_options;
    writer_options.is_cluster = true;
    auto writer = KeyWriter::Open(*connection.value(), writer_options);
    ASSERT_TRUE(writer.ok()) << writer.error().detail;
    std::vector<Entry> entries;
    for (const std::string& name : names) {
      Entry entry;
      entry.key = name;
      entry.payload = rdb::EncodeStringDump(name);
      entries.push_back(entry);
    }
    std::vector<const Entry*> pointers;
    for (const Entry& entry : entries) pointers.push_back(&entry);
    std::vector<WrittenKey> written;
    const Status status = writer.value().Write(pointers, kNowMs, written);
    ASSERT_TRUE(status.ok()) << status.error().detail;
    for (size_t i = 0; i < names.size(); ++i) {
      const bool is_here = cluster.Owner(redis::KeySlot(names[i])) == node;
      EXPECT_EQ(written[i].fate, is_here ? KeyFate::kRestored : KeyFate::kElsewhere)
          << names[i] << written[i].message;
      if (is_here) {
        EXPECT_EQ(cluster.client(node).String({"GET", names[i]}), names[i]);
      }
    }
  }
  EXPECT_EQ(cluster.client(0).Integer({"DBSIZE"}) + cluster.client(1).Integer({"DBSIZE"}),
            static_cast<long long>(names.size()));
}

}  // namespace
}  // namespace prm::sink
