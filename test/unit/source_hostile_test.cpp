// A server that gives every command every kind of wrong answer: whatever is asked ends, with an error or
// without, and never with more memory than replies may take.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <string>

#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "redis/deployment.h"
#include "source/cluster_scan.h"
#include "source/scan.h"

namespace prm::source {
namespace {

using test::HostileRedis;

const std::string kNodeId(40, 'a');

class EverythingFilter : public KeyFilter {
 public:
  Interest Classify(int, Bytes) override { return Interest::kRead; }
};

// Text of a peer in an error is printable.
void ExpectPrintable(const Status& status, const std::string& where) {
  if (status.ok()) return;
  const std::string text = status.error().message + status.error().detail + status.error().hint;
  EXPECT_FALSE(status.error().message.empty()) << where;
  EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c != '\x7f'; }))
      << where << ": " << text;
}

size_t AddressSpaceBytes() {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<size_t>(getpagesize());
}

class HostileTest : public testing::Test {
 protected:
  HostileTest() {
    test::RedisClient client(server_.port());
    client.Command({"SET", "string", "value"});
    client.Command({"SET", "long string", std::string(5000, 'x')});
    client.Command({"HSET", "hash", "field", std::string(3000, 'x')});
    client.Command({"RPUSH", "list", std::string(3000, 'x'), "b"});
    client.Command({"SADD", "set", std::string(3000, 'x'), "b"});
    client.Command({"ZADD", "zset", "1", std::string(3000, 'x')});
    client.Command({"XADD", "stream", "1-1", "field", std::string(3000, 'x')});
    client.Command({"XGROUP", "CREATE", "stream", "group", "0"});
    client.Command({"XREADGROUP", "GROUP", "group", "me", "STREAMS", "stream", ">"});
    deployment_.connection.host = "127.0.0.1";
    deployment_.connection.connect_timeout_ms = 20000;
    deployment_.connection.command_timeout_ms = 20000;
    options_.databases = {0};
    options_.max_reply_bytes = 1000;  // so that most values are read in pieces
  }

  // The server behind it is no cluster and no Sentinel: these are the answers of a cluster of one node and of
  // a Sentinel.
  static std::optional<HostileRedis::Answer> AsClusterNode(const std::string& command, int port) {
    const std::string text = std::to_string(port);
    if (command == "CLUSTER SHARDS") return HostileRedis::Answer{"-ERR unknown subcommand\r\n"};
    if (command == "CLUSTER SLOTS") {
      return HostileRedis::Answer{"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:" + text +
                                  "\r\n$40\r\n" + kNodeId + "\r\n"};
    }
    if (command == "CLUSTER NODES") {
      const std::string nodes =
          kNodeId + " 127.0.0.1:" + text + "@1 myself,master - 0 0 1 connected 0-16383\n";
      return HostileRedis::Answer{"$" + std::to_string(nodes.size()) + "\r\n" + nodes + "\r\n"};
    }
    if (command == "SENTINEL GET-MASTER-ADDR-BY-NAME") {
      return HostileRedis::Answer{"*2\r\n$9\r\n127.0.0.1\r\n$" + std::to_string(text.size()) + "\r\n" + text +
                                  "\r\n"};
    }
    return std::nullopt;
  }

  // Runs the work with each command that it uses answered by each wrong answer.
  void TryAll(const std::function<Status()>& work) {
    std::string wrong_command;
    HostileRedis::Answer wrong_answer;
    int port = 0;
    HostileRedis hostile(
        [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
          const std::string name = HostileRedis::NameOf(arguments);
          if (name == wrong_command) return wrong_answer;
          return AsClusterNode(name, port);
        },
        server_.port());
    port = hostile.port();
    deployment_.connection.port = port;
    const Status healthy = work();
    ASSERT_TRUE(healthy.ok()) << healthy.error().message << healthy.error().detail;
    deployment_.connection.connect_timeout_ms = 60;
    deployment_.connection.command_timeout_ms = 30;
    const size_t before = AddressSpaceBytes();
    for (const std::string& command : hostile.commands()) {
      for (const HostileRedis::Answer& answer : test::WrongAnswers()) {
        wrong_answer = answer;
        wrong_command = command;
        const auto start = std::chrono::steady_clock::now();
        const Status status = work();
        const std::string where = command + " answered " + answer.bytes;
        ExpectPrintable(status, where);
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << where;
      }
      wrong_command.clear();
    }
    EXPECT_LT(AddressSpaceBytes(), before + (size_t{1} << 30));
  }

  Status Scan(redis::Connection& connection) {
    auto scan = ScanSource::Open(connection, options_, filter_, {});
    if (!scan.ok()) return scan.error();
    Batch batch;
    for (int batches = 0; batches < 20; ++batches) {
      const Result<bool> next = scan.value()->Next(batch);
      if (!next.ok()) return next.error();
      if (!next.value()) return {};
    }
    return {};
  }

  Status ScanServer() {
    auto connection = redis::OpenServer(deployment_, waiter_);
    return connection.ok() ? Scan(*connection.value()) : Status(connection.error());
  }

  test::RedisServer server_;
  test::PollWaiter waiter_;
  redis::Deployment deployment_;
  ScanOptions options_;
  EverythingFilter filter_;
};

TEST_F(HostileTest, Scan) {
  deployment_.connection.username = "default";
  deployment_.connection.password = "secret word";
  deployment_.read_from = redis::ReadFrom::kMaster;
  test::RedisClient(server_.port()).Command({"ACL", "SETUSER", "default", "resetpass", ">secret word"});
  TryAll([&] { return ScanServer(); });
}

TEST_F(HostileTest, ScanWithoutWhatMayBeRefused) {
  test::RedisClient(server_.port())
      .Command({"ACL", "SETUSER", "default", "-dump", "-pexpiretime", "-memory", "-watch", "-role"});
  deployment_.read_from = redis::ReadFrom::kMaster;
  TryAll([&] { return ScanServer(); });
}

TEST_F(HostileTest, Cluster) {
  TryAll([&]() -> Status {
    deployment_.seeds = {{"127.0.0.1", deployment_.connection.port}};
    auto scan = ClusterScan::Open(deployment_, options_, filter_, {}, waiter_, redis::Slots().set());
    if (!scan.ok()) return scan.error();
    Batch batch;
    for (int batches = 0; batches < 20; ++batches) {
      const Result<bool> next = scan.value()->Next(batch);
      if (!next.ok()) return next.error();
      if (!next.value()) return {};
    }
    return {};
  });
}

TEST_F(HostileTest, Sentinel) {
  TryAll([&] {
    deployment_.sentinel_master = "mymaster";
    deployment_.sentinels = {{"127.0.0.1", deployment_.connection.port}};
    auto connection = redis::OpenServer(deployment_, waiter_);
    if (!connection.ok()) return Status(connection.error());
    return redis::CheckStillCurrent(deployment_, *connection.value(), waiter_);
  });
}

// A name of 200 MB that really comes, and a server that says so of ever more.
TEST_F(HostileTest, AHugeNameTakesNoMemory) {
  HostileRedis::Answer answer{"*2\r\n$1\r\n0\r\n*1\r\n$209715200\r\n" + std::string(200 << 20, 'n') + "\r\n"};
  HostileRedis hostile(
      [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (arguments[0] != "SCAN") return std::nullopt;
        return answer;
      },
      server_.port());
  deployment_.connection.port = hostile.port();
  const size_t before = AddressSpaceBytes();
  const auto start = std::chrono::steady_clock::now();
  const Status status = ScanServer();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  EXPECT_LT(AddressSpaceBytes(), before + (size_t{450} << 20));  // two copies are the test's own
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kTooLarge);
  EXPECT_NE(status.error().detail.find("a string of 209715200 bytes that begins with \"nnnn"),
            std::string::npos)
      << status.error().detail;
}

// A value that is larger than it may be costs its key, not the scan.
TEST_F(HostileTest, AHugeValueIsReadPast) {
  const std::string value(50 << 20, 'v');
  options_.max_value_bytes = 100000;
  options_.max_reply_bytes = 100000;
  HostileRedis hostile(
      [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (arguments[0] != "DUMP" || arguments[1] != "hash") return std::nullopt;
        return HostileRedis::Answer{"$" + std::to_string(value.size()) + "\r\n" + value + "\r\n"};
      },
      server_.port());
  deployment_.connection.port = hostile.port();
  auto connection = redis::OpenServer(deployment_, waiter_);
  ASSERT_TRUE(connection.ok());
  auto scan = ScanSource::Open(*connection.value(), options_, filter_, {});
  ASSERT_TRUE(scan.ok());
  Batch batch;
  size_t entries = 0;
  for (;;) {
    const Result<bool> next = scan.value()->Next(batch);
    ASSERT_TRUE(next.ok()) << next.error().message << next.error().detail;
    if (!next.value()) break;
    for (const Entry& entry : batch.entries) {
      ++entries;
      EXPECT_EQ(entry.state, entry.key == "hash" ? EntryState::kTooLarge : EntryState::kRead) << entry.key;
      EXPECT_EQ(entry.size, entry.key == "hash" ? value.size() : 0);
    }
  }
  EXPECT_EQ(entries, 7U);
}

}  // namespace
}  // namespace prm::source
