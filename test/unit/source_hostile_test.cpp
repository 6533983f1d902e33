// A server gives every command every kind of wrong answer. Every call ends, with or without an error, and
// never takes more memory than replies may.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>

#include "lib/cpp/hostile_fixture.h"
#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/redis_client.h"
#include "redis/deployment.h"
#include "source/cluster_scan.h"
#include "source/scan.h"

namespace prm::source {
namespace {

using test::HostileRedis;

class EverythingFilter : public KeyFilter {
 public:
  KeyDecision Classify(int, Bytes) override { return {Interest::kRead}; }
};

class HostileTest : public test::HostileFixture {
 protected:
  HostileTest() {
    options_.databases = {0};
    options_.max_reply_bytes = 1000;  // so that most values are read in pieces
  }

  static Status ReadSome(Source& source) {
    Batch batch;
    for (int batches = 0; batches < 20; ++batches) {
      const Result<bool> next = source.Next(batch);
      if (!next.ok()) return next.error();
      if (!next.value()) return {};
    }
    return {};
  }

  Status Scan(redis::Connection& connection) {
    auto scan = ScanSource::Open(connection, options_, filter_, {});
    if (!scan.ok()) return scan.error();
    return ReadSome(*scan.value());
  }

  Status ScanServer() {
    auto connection = redis::OpenServer(deployment_, waiter_);
    return connection.ok() ? Scan(*connection.value()) : Status(connection.error());
  }

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
    return ReadSome(*scan.value());
  });
}

// Which would be asked for ever, as no other node has the slot.
TEST_F(HostileTest, ANodeThatHasASlotAndSendsUsAway) {
  int port = 0;
  std::atomic<int> scans = 0;
  HostileRedis hostile(
      [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        const std::string name = HostileRedis::NameOf(arguments);
        const std::string text = std::to_string(port);
        if (name == "CLUSTER SLOTS") {
          return HostileRedis::Answer{"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:" + text +
                                      "\r\n$40\r\n" + std::string(40, 'a') + "\r\n"};
        }
        if (arguments[0] == "CLUSTER") return HostileRedis::Answer{"-ERR unknown subcommand\r\n"};
        if (arguments[0] == "SCAN") ++scans;
        if (arguments.size() > 1 && arguments[1] == "string" && arguments[0] != "SCAN") {
          return HostileRedis::Answer{"-MOVED " + std::to_string(redis::KeySlot("string")) +
                                      " 127.0.0.1:" + text + "\r\n"};
        }
        return std::nullopt;
      },
      server_.port());
  port = hostile.port();
  deployment_.connection.port = port;
  deployment_.seeds = {{"127.0.0.1", port}};
  auto scan = ClusterScan::Open(deployment_, options_, filter_, {}, waiter_, redis::Slots().set());
  ASSERT_TRUE(scan.ok()) << scan.error().message;
  Batch batch;
  Result<bool> next = true;
  for (int batches = 0; batches < 100 && next.ok() && next.value(); ++batches)
    next = scan.value()->Next(batch);
  ASSERT_FALSE(next.ok());
  EXPECT_EQ(next.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(next.error().message.find("says of slot " + std::to_string(redis::KeySlot("string"))),
            std::string::npos)
      << next.error().message;
  EXPECT_LT(scans, 50);
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

// A name of 200 MB that really comes, and a server that announces ever larger ones.
TEST_F(HostileTest, AHugeNameTakesNoMemory) {
  HostileRedis::Answer answer{"*2\r\n$1\r\n0\r\n*1\r\n$209715200\r\n" + std::string(200 << 20, 'n') + "\r\n"};
  HostileRedis hostile(
      [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (arguments[0] != "SCAN") return std::nullopt;
        return answer;
      },
      server_.port());
  deployment_.connection.port = hostile.port();
  const size_t before = test::AddressSpaceBytes();
  const auto start = std::chrono::steady_clock::now();
  const Status status = ScanServer();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  EXPECT_LT(test::AddressSpaceBytes(), before + (size_t{450} << 20));  // two copies are the test's own
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kTooLarge);
  EXPECT_NE(status.error().detail.find("a string of 209715200 bytes that begins with \"nnnn"),
            std::string::npos)
      << status.error().detail;
}

// A value that is too large fails its key, not the scan.
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
