// Snapshots as a replica gets them: from a real server, from disk and without, and from a hostile one.
#include "source/snapshot.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/memory_spool.h"
#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/rdb_builders.h"
#include "lib/cpp/rdb_file.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "source/rdb_file.h"

namespace prm::source {
namespace {

using test::HostileRedis;
using test::MemorySpool;

constexpr uint64_t kNoLimit = uint64_t{1} << 40;

class EverythingFilter : public KeyFilter {
 public:
  KeyDecision Classify(int, Bytes) override { return {Interest::kRead}; }
};

Result<std::unique_ptr<redis::Connection>> Connect(int port, redis::Waiter& waiter,
                                                   const std::string& user = "") {
  redis::ConnectionOptions options;
  options.host = "127.0.0.1";
  options.port = port;
  options.username = user;
  options.password = user.empty() ? "" : "secret word";
  options.command_timeout_ms = 5000;
  return redis::Connection::Open(options, waiter);
}

Status Receive(int port, MemorySpool& spool, uint64_t most_bytes = kNoLimit, const std::string& user = "") {
  test::PollWaiter waiter;
  auto connection = Connect(port, waiter, user);
  if (!connection.ok()) return connection.error();
  auto link = redis::ReplicationLink::OpenForSnapshot(*connection.value());
  if (!link.ok()) return link.error();
  return ReceiveSnapshot(*link.value(), spool, most_bytes);
}

// "0/key" with its DUMP payload, or the bytes of a short string.
std::map<std::string, std::string> PayloadsOf(MemorySpool& spool) {
  RdbFileOptions options;
  EverythingFilter filter;
  auto opened = RdbFileSource::Open(spool, options, filter, "");
  EXPECT_TRUE(opened.ok());
  std::map<std::string, std::string> payloads;
  Batch batch;
  while (true) {
    const auto next = opened.value()->Next(batch);
    EXPECT_TRUE(next.ok()) << next.error().message << next.error().detail;
    if (!next.ok() || !next.value()) return payloads;
    for (const Entry& entry : batch.entries) {
      payloads[std::to_string(entry.db) + "/" + entry.key] = entry.payload;
    }
  }
}

class SnapshotTest : public testing::TestWithParam<std::string> {
 protected:
  test::RedisServer server_{{"--repl-diskless-sync", GetParam(), "--repl-diskless-sync-delay", "0"}};
};

// Every key as it was when the snapshot began, also where values look like the end of a snapshot.
TEST_P(SnapshotTest, HoldsWhatTheServerHeld) {
  test::RedisClient client(server_.port());
  std::map<std::string, std::string> expected;
  for (int db : {0, 7}) {
    client.Command({"SELECT", std::to_string(db)});
    for (int i = 0; i < 3000; ++i) {
      client.Command({"SET", "string:" + std::to_string(i), std::string(i * 7 % 4000, 'v')});
    }
    client.Command({"HSET", "hash", "field", "value", "\xff", std::string("\0\xfe", 2)});
    client.Command({"RPUSH", "list", "$EOF:" + std::string(40, '0'), "\xff\r\n"});
    client.Command({"ZADD", "sorted", "1.5", "member"});
    client.Command({"XADD", "stream", "1-1", "a", "1"});
    for (const std::string& key : client.Strings({"KEYS", "*"})) {
      const bool is_string = client.String({"TYPE", key}) == "string";
      const std::string value = is_string ? client.String({"GET", key}) : "";
      const bool is_short = !value.empty() && value.size() < kShortStringLimit;
      expected[std::to_string(db) + "/" + key] = is_short ? value : client.String({"DUMP", key});
    }
  }
  MemorySpool spool;
  const Status received = Receive(server_.port(), spool);
  ASSERT_TRUE(received.ok()) << received.error().message << " " << received.error().detail;
  EXPECT_EQ(PayloadsOf(spool), expected);
  // The server keeps its end mark for all snapshots of its life: a value that holds it ends nothing.
  client.Command({"SET", "whole snapshot", spool.content});
  MemorySpool again;
  ASSERT_TRUE(Receive(server_.port(), again).ok());
  EXPECT_EQ(PayloadsOf(again).size(), expected.size() + 1);
}

TEST_P(SnapshotTest, OfNoKeys) {
  MemorySpool spool;
  ASSERT_TRUE(Receive(server_.port(), spool).ok());
  EXPECT_TRUE(PayloadsOf(spool).empty());
}

TEST_P(SnapshotTest, IsBounded) {
  test::RedisClient(server_.port()).Command({"SET", "large", std::string(300000, 'x') + std::string(9, 'y')});
  test::RedisClient(server_.port()).Command({"CONFIG", "SET", "rdbcompression", "no"});
  MemorySpool spool;
  const Status received = Receive(server_.port(), spool, 200000);
  ASSERT_FALSE(received.ok());
  EXPECT_EQ(received.error().code, ErrorCode::kTooLarge);
  EXPECT_LE(spool.content.size(), 200000U);
}

// No key pattern is needed to receive everything.
TEST_P(SnapshotTest, NeedsTwoRights) {
  test::RedisClient client(server_.port());
  client.Command({"SET", "key", "value"});
  client.Command({"ACL", "SETUSER", "mig", "on", ">secret word", "+psync", "+replconf"});
  MemorySpool spool;
  ASSERT_TRUE(Receive(server_.port(), spool, kNoLimit, "mig").ok());
  EXPECT_EQ(PayloadsOf(spool).size(), 1U);
  for (const char* right : {"-psync", "-replconf"}) {
    client.Command({"ACL", "SETUSER", "mig", "+psync", "+replconf", right});
    MemorySpool none;
    const Status refused = Receive(server_.port(), none, kNoLimit, "mig");
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied) << refused.error().message;
    EXPECT_NE((refused.error().message + refused.error().detail).find(right + 1), std::string::npos);
  }
}

// The application writes on meanwhile, and other replicas are served.
TEST_P(SnapshotTest, LeavesTheServerAsItWas) {
  test::RedisClient client(server_.port());
  client.Command({"SET", "key", "value"});
  test::RedisServer replica({"--replicaof", "127.0.0.1 " + std::to_string(server_.port())});
  for (int i = 0; i < 3; ++i) {
    MemorySpool spool;
    ASSERT_TRUE(Receive(server_.port(), spool).ok());
  }
  EXPECT_EQ(client.String({"SET", "key", "later"}), "OK");
  test::RedisClient follower(replica.port());
  for (int wait = 0; wait < 200 && follower.String({"GET", "key"}) != "later"; ++wait) usleep(50000);
  EXPECT_EQ(follower.String({"GET", "key"}), "later");
}

INSTANTIATE_TEST_SUITE_P(FromDisk, SnapshotTest, testing::Values("no"));
INSTANTIATE_TEST_SUITE_P(Diskless, SnapshotTest, testing::Values("yes"));

// A replica that has lost its master sends no snapshot.
TEST(SnapshotErrors, ReplicaWithoutMaster) {
  test::RedisServer replica({"--replicaof", "127.0.0.1 " + std::to_string(test::RedisServer::FreePort())});
  MemorySpool spool;
  const Status received = Receive(replica.port(), spool);
  ASSERT_FALSE(received.ok());
  EXPECT_EQ(received.error().code, ErrorCode::kUnavailable) << received.error().message;
}

// Answers PSYNC with these bytes and everything else with OK.
Status ReceiveFrom(const std::string& bytes, MemorySpool& spool, bool closes = true) {
  HostileRedis server([&](const HostileRedis::Arguments& arguments) {
    if (arguments.at(0) == "PSYNC") return HostileRedis::Answer{bytes, closes};
    return HostileRedis::Answer{"+OK\r\n"};
  });
  return Receive(server.port(), spool);
}

const std::string kId(40, 'a');
const std::string kSync = "+FULLRESYNC " + kId + " 17\r\n";

TEST(SnapshotErrors, LinesThatAreNone) {
  for (const std::string& bytes : std::vector<std::string>{"",
                                                           "+OK\r\n",
                                                           "+CONTINUE\r\n",
                                                           "+CONTINUE " + kId + "\r\n",
                                                           ":1\r\n",
                                                           "$3\r\nabc\r\n",
                                                           "*0\r\n",
                                                           "+FULLRESYNC\r\n",
                                                           "+FULLRESYNC " + kId + "\r\n",
                                                           "+FULLRESYNC " + kId + " -1\r\n",
                                                           "+FULLRESYNC " + kId + " 99999999999999999999\r\n",
                                                           "+FULLRESYNC short 1\r\n",
                                                           "+FULLRESYNC " + std::string(40, 'z') + " 1\r\n",
                                                           std::string(100000, 'x'),
                                                           std::string(100000, '\n'),
                                                           kSync,
                                                           kSync + "$-1\r\n",
                                                           kSync + "$x\r\n",
                                                           kSync + "$\r\n",
                                                           kSync + "$EOF:short\r\n",
                                                           kSync + "+OK\r\n",
                                                           kSync + "$99999999999999999999\r\n",
                                                           "+RDBCHANNELSYNC 5\r\n",
                                                           "-ERR no\xff\x01 such thing\r\n",
                                                           "-NOMASTERLINK\r\n",
                                                           "-\r\n"}) {
    MemorySpool spool;
    const Status received = ReceiveFrom(bytes, spool);
    ASSERT_FALSE(received.ok()) << bytes.substr(0, 80);
    EXPECT_TRUE(spool.content.empty());
    const std::string text = received.error().message + received.error().detail;
    EXPECT_EQ(text.find_first_of("\xff\x01\r\n"), std::string::npos) << text;
  }
}

TEST(SnapshotErrors, EndsThatAreNone) {
  const std::string file = test::FramedFile("REDIS0011", test::FileKeyBytes(0, "key", test::String("value")));
  const std::string mark(40, 'e');
  const std::string sized = kSync + "$" + std::to_string(file.size()) + "\r\n";
  const std::string marked = "\n\n" + kSync + "\n\n\n$EOF:" + mark + "\r\n";
  MemorySpool whole;
  ASSERT_TRUE(ReceiveFrom(sized + file, whole).ok());
  EXPECT_EQ(whole.content, file);
  MemorySpool also_whole;
  ASSERT_TRUE(ReceiveFrom(marked + file + mark + "*1\r\n$4\r\nPING\r\n", also_whole).ok());
  EXPECT_EQ(also_whole.content, file);
  std::string damaged = file;
  damaged[file.size() - 12] ^= 1;
  for (const std::string& bytes :
       {sized + file.substr(0, file.size() - 1),
        kSync + "$" + std::to_string(file.size() + 1) + "\r\n" + file + "x",
        kSync + "$" + std::to_string(file.size() - 1) + "\r\n" + file, sized + damaged, marked + file,
        marked + file + mark.substr(1), marked + file + std::string(40, 'f'), marked + damaged + mark,
        sized + std::string(file.size(), 'x'), kSync + "$0\r\n"}) {
    MemorySpool spool;
    EXPECT_FALSE(ReceiveFrom(bytes, spool).ok());
  }
}

TEST(SnapshotErrors, EveryWrongAnswer) {
  const std::string file = test::FramedFile("REDIS0011", "");
  for (const std::string& command : {"CLIENT", "REPLCONF", "PSYNC"}) {
    for (const HostileRedis::Answer& wrong : test::WrongAnswers()) {
      HostileRedis server([&](const HostileRedis::Arguments& arguments) {
        if (arguments.at(0) == command) return wrong;
        if (arguments.at(0) == "PSYNC") {
          return HostileRedis::Answer{kSync + "$" + std::to_string(file.size()) + "\r\n" + file};
        }
        return HostileRedis::Answer{"+OK\r\n"};
      });
      MemorySpool spool;
      const Status received = Receive(server.port(), spool);
      if (received.ok()) {
        EXPECT_NE(command, "PSYNC") << wrong.bytes.substr(0, 40);
        EXPECT_EQ(spool.content, file);
      } else {
        const std::string text = received.error().message + received.error().detail;
        EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) { return c >= ' '; })) << text;
      }
    }
  }
}

}  // namespace
}  // namespace prm::source
