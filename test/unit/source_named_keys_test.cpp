// Keys read by name: what a server has, at the point of its stream that is told; also by hostile servers.
#include "source/named_keys.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "lib/cpp/follower.h"
#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/memory_spool.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "stream/stream_changes.h"

namespace prm::source {
namespace {

using test::HostileRedis;

// A connection and what reads by it.
class Reader {
 public:
  explicit Reader(int port, const NamedKeysOptions& options = {}, const std::string& user = "") {
    redis::ConnectionOptions to;
    to.host = "127.0.0.1";
    to.port = port;
    to.username = user;
    to.password = user.empty() ? "" : "secret word";
    to.command_timeout_ms = 5000;
    auto connected = redis::Connection::Open(to, waiter_);
    if (!connected.ok()) {
      status = connected.error();
      return;
    }
    connection_ = std::move(connected.value());
    auto opened = NamedKeys::Open(*connection_, options);
    if (opened.ok()) {
      keys = std::move(opened.value());
    } else {
      status = opened.error();
    }
  }

  std::vector<NamedKey> Read(const std::vector<std::pair<int, std::string>>& names) {
    std::vector<NamedKey> read(names.size());
    for (size_t i = 0; i < names.size(); ++i) {
      read[i].entry.db = names[i].first;
      read[i].entry.key = names[i].second;
    }
    status = keys->Read(read);
    return read;
  }

  redis::Connection& connection() { return *connection_; }

  Status status;
  std::unique_ptr<NamedKeys> keys;

 private:
  test::PollWaiter waiter_;
  std::unique_ptr<redis::Connection> connection_;
};

class NamedKeysTest : public testing::Test {
 protected:
  // "dump@expiry" of a key as the server has it; empty: it has none.
  std::string Truth(int db, const std::string& key) {
    client_.Command({"SELECT", std::to_string(db)});
    const test::Reply dump = client_.Command({"DUMP", key});
    if (dump->type == REDIS_REPLY_NIL) return "";
    return test::Text(dump.get()) + "@" + std::to_string(client_.Integer({"PEXPIRETIME", key}));
  }
  // The values that were read, as the server has them after RESTORE.
  std::string TextOf(const Entry& entry) {
    if (entry.state != EntryState::kRead) return "";
    client_.Command({"SELECT", "15"});
    client_.Command({"RESTORE", "copy", "0", DumpOf(entry).value(), "REPLACE"});
    return client_.String({"DUMP", "copy"}) + "@" + std::to_string(entry.expires_at_ms.value_or(-1));
  }
  redis::ReplicationPoint Point() {
    const std::string info = client_.String({"INFO", "replication"});
    return {info.substr(info.find("master_replid:") + 14, 40),
            std::stoull(info.substr(info.find("master_repl_offset:") + 19))};
  }
  // Values of every type in two databases, some that are gone.
  std::vector<std::pair<int, std::string>> Fill() {
    std::vector<std::pair<int, std::string>> names;
    for (const int db : {3, 0}) {
      client_.Command({"SELECT", std::to_string(db)});
      client_.Command({"SET", "string", "v" + std::to_string(db)});
      client_.Command({"SET", "expiring", "v", "PX", "999999999"});
      client_.Command({"SET", "long", std::string(5000, 'x')});
      client_.Command({"RPUSH", "list", "a", "b"});
      client_.Command({"HSET", "hash", "f", "v"});
      client_.Command({"SADD", "set", "1", "2"});
      client_.Command({"ZADD", "zset", "1.5", "m"});
      client_.Command({"XADD", "stream", "1-1", "f", "v"});
      for (const char* name : {"string", "gone", "expiring", "long", "list", "hash", "set", "zset", "stream"})
        names.emplace_back(db, name);
    }
    return names;
  }
  void ExpectTruth(const std::vector<NamedKey>& read) {
    for (const NamedKey& key : read) {
      EXPECT_EQ(TextOf(key.entry), Truth(key.entry.db, key.entry.key)) << key.entry.key;
      if (key.entry.key == "gone") EXPECT_EQ(key.entry.state, EntryState::kVanished);
    }
  }

  test::RedisServer server_{{"--repl-diskless-sync-delay", "0"}};
  test::RedisClient client_{server_.port()};
};

TEST_F(NamedKeysTest, ReadsWhatTheServerHas) {
  test::Follower follower(server_.port());  // without a replica there is no stream
  const auto names = Fill();
  for (const size_t at_once : {1, 2, 200}) {
    const redis::ReplicationPoint point = Point();
    NamedKeysOptions options;
    options.keys_at_once = at_once;
    Reader reader(server_.port(), options);
    ASSERT_TRUE(reader.status.ok()) << reader.status.error().message;
    EXPECT_EQ(reader.keys->FetchPoint().value(), point);
    const auto read = reader.Read(names);
    ASSERT_TRUE(reader.status.ok()) << reader.status.error().message << reader.status.error().detail;
    for (const NamedKey& key : read) {
      EXPECT_EQ(key.since, point);
      EXPECT_EQ(key.until, point);
    }
    ExpectTruth(read);
  }
}

TEST_F(NamedKeysTest, LeavesWhatIsTooMuch) {
  const std::vector<std::pair<int, std::string>> names = Fill();
  for (const char* name : {"a", "b", "c"}) client_.Command({"SET", name, std::string(30000, 'x')});
  NamedKeysOptions options;
  options.bytes_in_all = 60000;  // room for one of them, and all others
  Reader reader(server_.port(), options);
  auto wanted = names;
  for (const char* name : {"a", "b", "c", "string"}) wanted.emplace_back(0, name);
  auto read = reader.Read(wanted);
  ASSERT_TRUE(reader.status.ok()) << reader.status.error().message << reader.status.error().detail;
  int left = 0;
  for (const NamedKey& key : read) {
    if (key.is_left) ++left;
    EXPECT_EQ(key.is_left, key.entry.key == "b" || key.entry.key == "c") << key.entry.key;
    if (!key.is_left) EXPECT_EQ(TextOf(key.entry), Truth(key.entry.db, key.entry.key)) << key.entry.key;
  }
  EXPECT_EQ(left, 2);
  // A single one is read, however large it is.
  options.bytes_in_all = 1;
  Reader one_by_one(server_.port(), options);
  read = one_by_one.Read({{0, "a"}, {0, "b"}});
  EXPECT_FALSE(read[0].is_left);
  EXPECT_EQ(TextOf(read[0].entry), Truth(0, "a"));
  EXPECT_TRUE(read[1].is_left);
  // Where sizes may not be asked for, the number of keys is the bound.
  client_.Command({"ACL", "SETUSER", "blind", "on", ">secret word", "~*", "+@all", "-memory"});
  options.bytes_in_all = 50000;
  options.keys_at_once = 2;
  Reader blind(server_.port(), options, "blind");
  ASSERT_TRUE(blind.status.ok()) << blind.status.error().message;
  read = blind.Read({{0, "a"}, {0, "b"}, {0, "c"}});
  EXPECT_FALSE(read[0].is_left || read[1].is_left);
  EXPECT_TRUE(read[2].is_left);
}

// Between any two MULTIs something is written.
TEST_F(NamedKeysTest, ReadsTogetherWhatBelongsTogether) {
  test::Follower follower(server_.port());
  test::RedisClient other(server_.port());
  HostileRedis writing(
      [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (arguments.at(0) == "MULTI") other.Command({"INCR", "n"});
        return std::nullopt;
      },
      server_.port());
  NamedKeysOptions options;
  options.keys_at_once = 40;
  Reader reader(writing.port(), options);
  ASSERT_TRUE(reader.status.ok()) << reader.status.error().message;
  std::vector<NamedKey> keys(120);
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i].entry.db = 0;
    keys[i].entry.key = "key" + std::to_string(i);
    keys[i].together = i % 4 == 3 ? 0 : i % 4 + 1;  // 30 of each number
    client_.Command({"SET", keys[i].entry.key, std::to_string(i)});
  }
  const Status read = reader.keys->Read(keys);
  ASSERT_TRUE(read.ok()) << read.error().message;
  std::map<uint64_t, std::set<uint64_t>> moments;
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(TextOf(keys[i].entry), Truth(0, keys[i].entry.key));
    moments[keys[i].together].insert(keys[i].since.offset);
  }
  for (const uint64_t number : {1, 2, 3}) EXPECT_EQ(moments[number].size(), 1U) << number;
  // More than one MULTI has room for.
  for (NamedKey& key : keys) key.together = 5;
  ASSERT_TRUE(reader.keys->Read(keys).ok());
  moments.clear();
  for (const NamedKey& key : keys) moments[0].insert(key.since.offset);
  EXPECT_EQ(moments[0].size(), 3U);
}

TEST_F(NamedKeysTest, ReadsLargeValuesInPieces) {
  std::vector<std::pair<int, std::string>> names = Fill();
  client_.Command({"SET", "large", std::string(300000, 'a') + "end"});
  for (int i = 0; i < 3000; ++i)
    client_.Command({"HSET", "large hash", std::to_string(i), std::string(40, 'v')});
  client_.Command({"PEXPIREAT", "large hash", "1999999999999"});
  client_.Command({"SET", "too large", std::string(900000, 'a')});
  for (const char* name : {"large", "large hash", "too large"}) names.emplace_back(0, name);
  NamedKeysOptions options;
  options.bytes_at_once = 4000;
  options.max_reply_bytes = 20000;
  options.max_value_bytes = 700000;
  Reader reader(server_.port(), options);
  auto read = reader.Read(names);
  ASSERT_TRUE(reader.status.ok()) << reader.status.error().message;
  EXPECT_EQ(read.back().entry.state, EntryState::kTooLarge);
  EXPECT_GE(read.back().entry.size, 900000U);
  read.pop_back();
  for (NamedKey& key : read) {
    if (key.entry.key != "large hash") continue;
    // The order of fields is not that of DUMP.
    client_.Command({"SELECT", "9"});
    client_.Command(
        {"RESTORE", "copy", std::to_string(*key.entry.expires_at_ms), key.entry.payload, "ABSTTL"});
    EXPECT_EQ(client_.Integer({"HLEN", "copy"}), 3000);
    EXPECT_EQ(*key.entry.expires_at_ms, 1999999999999);
    key.entry.payload.clear();
    key.entry.key = "gone";
    key.entry.state = EntryState::kVanished;
  }
  ExpectTruth(read);
}

TEST_F(NamedKeysTest, LargeCollectionsGoToASpool) {
  for (int i = 0; i < 60; ++i) {
    std::vector<std::string> command = {"HSET", "h"};
    for (int field = 0; field < 100; ++field) {
      command.push_back(std::to_string(i * 100 + field));
      command.emplace_back(1000, 'v');
    }
    client_.Command(command);
  }
  NamedKeysOptions options;
  options.max_reply_bytes = 1 << 20;
  options.make_spool = [] { return std::make_unique<test::MemorySpool>(); };
  Reader reader(server_.port(), options);
  auto read = reader.Read({{0, "h"}});
  ASSERT_TRUE(reader.status.ok()) << reader.status.error().message;
  ASSERT_NE(read[0].entry.large, nullptr);
  EXPECT_TRUE(read[0].entry.payload.empty());
  client_.Command({"RESTORE", "copy", "0", DumpOf(read[0].entry).value()});
  EXPECT_EQ(client_.Integer({"HLEN", "copy"}), 6000);
}

TEST_F(NamedKeysTest, WorksWithoutDumpOrMemoryUsage) {
  const auto names = Fill();
  for (const char* right : {"-dump", "-memory", "-pexpiretime"}) {
    client_.Command({"ACL", "SETUSER", "mig", "reset", "on", ">secret word", "~*", "+@all", right});
    Reader reader(server_.port(), {}, "mig");
    ASSERT_TRUE(reader.status.ok()) << right << reader.status.error().message;
    auto read = reader.Read(names);
    ASSERT_TRUE(reader.status.ok()) << right << reader.status.error().message << reader.status.error().detail;
    for (NamedKey& key : read) {
      if (key.entry.key != "expiring") continue;
      // Two clocks, and the time between their readings.
      client_.Command({"SELECT", std::to_string(key.entry.db)});
      const int64_t truth = client_.Integer({"PEXPIRETIME", "expiring"});
      EXPECT_LE(std::abs(*key.entry.expires_at_ms - truth), 1000);
      key.entry.expires_at_ms = truth;
    }
    ExpectTruth(read);
  }
}

TEST_F(NamedKeysTest, WorksWhereTheServerHasNoMemoryLeft) {
  const auto names = Fill();
  // Behind it each value is of a type that only DUMP reads.
  HostileRedis of_module(
      [](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (arguments.at(0) == "TYPE") return HostileRedis::Answer{"+graphdata\r\n"};
        return std::nullopt;
      },
      server_.port());
  Reader reader(server_.port(), {});
  Reader reader_of_module(of_module.port(), {});
  client_.Command({"CONFIG", "SET", "maxmemory", "1"});
  const auto read = reader.Read(names);
  reader_of_module.Read({{0, "string"}});
  client_.Command({"CONFIG", "SET", "maxmemory", "0"});
  ASSERT_FALSE(reader_of_module.status.ok());
  EXPECT_EQ(reader_of_module.status.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(reader_of_module.status.error().message.find("type graphdata"), std::string::npos);
  ASSERT_TRUE(reader.status.ok()) << reader.status.error().message << reader.status.error().detail;
  ExpectTruth(read);
}

TEST_F(NamedKeysTest, NeedsItsRights) {
  for (const char* right : {"-info", "-multi", "-exec"}) {
    client_.Command({"ACL", "SETUSER", "mig", "reset", "on", ">secret word", "~*", "+@all", right});
    Reader reader(server_.port(), {}, "mig");
    ASSERT_FALSE(reader.status.ok()) << right;
    EXPECT_NE(reader.status.error().detail.find("NOPERM"), std::string::npos) << right;
    EXPECT_EQ(reader.status.error().code, ErrorCode::kPermissionDenied) << right;
  }
  client_.Command({"ACL", "SETUSER", "mig", "reset", "on", ">secret word", "~allowed:*", "+@all"});
  Reader reader(server_.port(), {}, "mig");
  ASSERT_TRUE(reader.status.ok());
  reader.Read({{0, "allowed:1"}, {0, "other"}});
  ASSERT_FALSE(reader.status.ok());
  EXPECT_EQ(reader.status.error().code, ErrorCode::kPermissionDenied) << reader.status.error().detail;
}

// A replica has no key that has expired, though it waits for its master to delete it; it says that it is one.
TEST_F(NamedKeysTest, TellsAReplica) {
  test::RedisServer replica({"--replicaof", "127.0.0.1 " + std::to_string(server_.port())});
  client_.Command({"SET", "a", "v"});
  test::RedisClient at_replica(replica.port());
  for (int i = 0; i < 500 && at_replica.Integer({"DBSIZE"}) < 1; ++i) usleep(10000);
  // It follows a while after it has the snapshot, which may be longer than a key lives.
  client_.Command({"SET", "a", "v"});
  client_.Command({"WAIT", "1", "5000"});
  client_.Command({"SET", "expiring", "v", "PX", "300"});
  for (int i = 0; i < 100 && at_replica.Integer({"DBSIZE"}) < 2; ++i) usleep(1000);
  server_.Pause();
  usleep(400000);
  ASSERT_EQ(at_replica.Integer({"DBSIZE"}), 2);
  Reader reader(replica.port());
  auto read = reader.Read({{0, "a"}, {0, "expiring"}});
  ASSERT_TRUE(reader.status.ok());
  EXPECT_TRUE(read[0].is_of_replica);
  EXPECT_EQ(read[1].entry.state, EntryState::kVanished);
  EXPECT_TRUE(read[1].is_of_replica);
  server_.Resume();
  Reader of_master(server_.port());
  read = of_master.Read({{0, "a"}});
  EXPECT_FALSE(read[0].is_of_replica);
}

// Values that are read while others write are those that the stream has made up to the point that is told.
TEST_F(NamedKeysTest, TellsThePoint) {
  test::Follower follower(server_.port());
  client_.Command({"SET", "large", std::string(200000, 'x')});
  std::atomic<bool> ends{false};
  std::thread writer([&] {
    test::RedisClient other(server_.port());
    while (!ends) {
      other.Command({"MULTI"});
      other.Command({"INCR", "a"});
      other.Command({"INCR", "b"});
      other.Command({"APPEND", "large", "1"});
      other.Command({"EXEC"});
    }
  });
  NamedKeysOptions options;
  options.max_reply_bytes = 100000;
  Reader reader(server_.port(), options);
  std::vector<NamedKey> all;
  for (int i = 0; i < 100; ++i) {
    const auto read = reader.Read({{0, "a"}, {0, "large"}, {0, "b"}});
    ASSERT_TRUE(reader.status.ok());
    EXPECT_EQ(read[0].since, read[2].since);
    EXPECT_LE(read[1].since.offset, read[1].until.offset);
    all.insert(all.end(), read.begin(), read.end());
  }
  ends = true;
  writer.join();
  client_.Command({"SET", "end", "end"});
  ASSERT_TRUE(follower.ReadUntil("end\r\n", 100000));
  // Offset after a transaction -> how many there were.
  std::map<uint64_t, uint64_t> transactions = {{follower.start.offset, 0}};
  Interrupts interrupts;
  stream::StreamChanges changes({follower.start.offset, 0}, {}, interrupts);
  changes.Feed(follower.stream, {});
  std::vector<stream::StreamChange> taken;
  uint64_t count = 0;
  while (changes.Next(taken).value()) {
    if (changes.in_transaction()) continue;
    if (!taken.empty() && taken.back().entry.key == "large" && taken.size() > 1) ++count;
    taken.clear();
    transactions[changes.position().offset] = count;
  }
  EXPECT_GT(count, 100U);
  const auto at = [&](uint64_t offset) { return std::prev(transactions.upper_bound(offset))->second; };
  int moved = 0;
  for (const NamedKey& key : all) {
    EXPECT_EQ(key.since.id, follower.start.id);
    if (key.entry.key == "large") {
      if (key.entry.state == EntryState::kChanging) continue;
      ASSERT_EQ(key.entry.state, EntryState::kRead);
      EXPECT_GE(key.entry.payload.size(), 200000 + at(key.since.offset));
      EXPECT_LE(key.entry.payload.size(), 200000 + at(key.until.offset));
      continue;
    }
    const std::string expected = std::to_string(at(key.since.offset));
    moved += at(key.since.offset) > 0 ? 1 : 0;
    if (expected == "0" && key.entry.state == EntryState::kVanished) continue;
    struct Text : rdb::ValueVisitor {
      void OnString(Bytes value) override { text = value; }
      std::string text;
    } text;
    ASSERT_TRUE(Decode(key.entry, text).ok());
    EXPECT_EQ(text.text, expected);
  }
  EXPECT_GT(moved, 50);
}

TEST_F(NamedKeysTest, AskingWhetherTheDataAreTheSameCountsForTheBudget) {
  RereadBudget budget(0.001);
  NamedKeysOptions options;
  options.budget = &budget;
  Reader reader(server_.port(), options);
  ASSERT_TRUE(reader.status.ok()) << reader.status.error().message;
  auto data = redis::DataWatch::Begin(reader.connection());
  ASSERT_TRUE(data.ok());
  EXPECT_EQ(budget.PauseUs(RereadBudget::NowUs()), 0);
  for (int i = 0; i < 50; ++i) {
    const Result<bool> is_same = reader.keys->Check(data.value());
    ASSERT_TRUE(is_same.ok() && is_same.value());
  }
  EXPECT_GT(budget.PauseUs(RereadBudget::NowUs()), 0);
  client_.Command({"FLUSHALL"});
  EXPECT_EQ(reader.keys->Check(data.value()).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(reader.Read({{0, "gone"}})[0].entry.state, EntryState::kVanished) << "the connection serves on";
}

TEST_F(NamedKeysTest, ARightThatIsTakenAwayIsToldOnceAndTheConnectionServesOn) {
  std::atomic<bool> is_refused = false;
  HostileRedis server(
      [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (HostileRedis::NameOf(arguments) != "TIME" || !is_refused) return std::nullopt;
        return HostileRedis::Answer{"-NOPERM no permissions to run the 'time' command\r\n"};
      },
      server_.port());
  RereadBudget budget(0.5);
  NamedKeysOptions options;
  options.budget = &budget;
  Reader reader(server.port(), options);
  ASSERT_TRUE(reader.status.ok()) << reader.status.error().message;
  auto data = redis::DataWatch::Begin(reader.connection());
  ASSERT_TRUE(data.ok());
  is_refused = true;
  const Result<bool> refused = reader.keys->Check(data.value());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
  is_refused = false;
  const Result<bool> is_same = reader.keys->Check(data.value());
  EXPECT_TRUE(is_same.ok() && is_same.value());
}

TEST_F(NamedKeysTest, SurvivesEveryWrongAnswer) {
  const auto names = Fill();
  for (const char* command :
       {"INFO", "MULTI", "EXEC", "DUMP", "MEMORY USAGE", "PEXPIRETIME", "SELECT", "HPEXPIRETIME"}) {
    for (const HostileRedis::Answer& wrong : test::WrongAnswers()) {
      HostileRedis server(
          [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
            if (HostileRedis::NameOf(arguments) == command) return wrong;
            return std::nullopt;
          },
          server_.port());
      Reader reader(server.port());
      if (reader.status.ok()) reader.Read(names);
      if (reader.status.ok()) continue;
      const std::string text = reader.status.error().message + reader.status.error().detail;
      EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) { return c >= ' '; })) << command << text;
    }
  }
}

// As before Redis 7.0: TIME and PTTL in place of PEXPIRETIME.
TEST_F(NamedKeysTest, ComputesExpiriesOfOldServers) {
  Fill();
  HostileRedis server(
      [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (arguments.at(0) == "PEXPIRETIME") return HostileRedis::Answer{"-ERR unknown command\r\n"};
        return std::nullopt;
      },
      server_.port());
  Reader reader(server.port());
  ASSERT_TRUE(reader.status.ok()) << reader.status.error().message;
  const auto read = reader.Read({{0, "expiring"}, {0, "string"}, {0, "gone"}});
  ASSERT_TRUE(reader.status.ok());
  client_.Command({"SELECT", "0"});
  EXPECT_LE(std::abs(*read[0].entry.expires_at_ms - client_.Integer({"PEXPIRETIME", "expiring"})), 100);
  EXPECT_FALSE(read[1].entry.expires_at_ms);
  EXPECT_EQ(read[2].entry.state, EntryState::kVanished);
}

}  // namespace
}  // namespace prm::source
