#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_proxy.h"
#include "lib/cpp/redis_server.h"
#include "redis/connection.h"

// A sanitizer keeps freed memory and is slow with large blocks.
#if defined(__SANITIZE_ADDRESS__)
#define PRM_TEST_SANITIZED true
#elif defined(__has_feature)
#define PRM_TEST_SANITIZED __has_feature(address_sanitizer)
#else
#define PRM_TEST_SANITIZED false
#endif

namespace prm::redis {
namespace {

class PipelineTest : public testing::Test {
 protected:
  std::unique_ptr<Connection> Connect(long command_timeout_ms = 10000, int port = 0) {
    ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = port != 0 ? port : server_.port();
    options.command_timeout_ms = command_timeout_ms;
    auto connection = Connection::Open(options, waiter_);
    if (!connection.ok()) throw std::runtime_error(connection.error().message);
    return std::move(connection.value());
  }

  static size_t ResidentBytes() {
    std::ifstream statm("/proc/self/statm");
    size_t total = 0;
    size_t resident = 0;
    statm >> total >> resident;
    return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  }

  test::RedisServer server_{{"--enable-debug-command", "yes"}};
  test::PollWaiter waiter_;
};

TEST_F(PipelineTest, AnswersComeInOrder) {
  constexpr int kCommands = 200000;
  const auto connection = Connect();
  for (int i = 0; i < kCommands; ++i) connection->Append({"ECHO", std::to_string(i)});
  EXPECT_EQ(connection->pending(), static_cast<size_t>(kCommands));
  for (int i = 0; i < kCommands; ++i) {
    const auto reply = connection->Receive();
    ASSERT_TRUE(reply.ok()) << reply.error().message;
    ASSERT_EQ(reply.value().String(), std::to_string(i));
  }
  EXPECT_EQ(connection->pending(), 0U);
}

// More than the socket buffers of both sides hold.
TEST_F(PipelineTest, MovesBothDirectionsAtOnce) {
  const auto connection = Connect();
  const std::string megabyte(1 << 20, 'x');
  for (int i = 0; i < 64; ++i) connection->Append({"ECHO", megabyte + std::to_string(i)}, kLargeReply);
  for (int i = 0; i < 64; ++i) {
    const auto reply = connection->Receive();
    ASSERT_TRUE(reply.ok()) << reply.error().message;
    ASSERT_TRUE(reply.value().String() == megabyte + std::to_string(i)) << i;
  }
}

TEST_F(PipelineTest, AnErrorReplyDoesNotEndIt) {
  const auto connection = Connect();
  connection->Append({"SET", "a", "1"});
  connection->Append({"LPUSH", "a", "x"});
  connection->Append({"GET", "a"});
  EXPECT_EQ(connection->Receive().value().StatusText(), "OK");
  const auto reply = connection->Receive();
  ASSERT_TRUE(reply.ok());
  ASSERT_TRUE(reply.value().IsError());
  const Error error = connection->ToError(reply.value());
  EXPECT_EQ(error.code, ErrorCode::kServerError);
  EXPECT_EQ(error.message, "Redis at " + connection->address() + " refused command \"LPUSH\"");
  EXPECT_EQ(error.detail, "WRONGTYPE Operation against a key holding the wrong kind of value");
  EXPECT_EQ(connection->Receive().value().String(), "1");
}

TEST_F(PipelineTest, FlushSendsWithoutWaiting) {
  const auto connection = Connect();
  test::RedisClient client(server_.port());
  connection->Append({"SET", "sent", "1"});
  EXPECT_EQ(client.Integer({"EXISTS", "sent"}), 0);
  connection->Flush();
  for (int i = 0; i < 200 && client.Integer({"EXISTS", "sent"}) == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(client.Integer({"EXISTS", "sent"}), 1);
  server_.Pause();
  for (int i = 0; i < 40; ++i) connection->Append({"ECHO", std::string(1 << 20, 'x')});
  const auto start = std::chrono::steady_clock::now();
  connection->Flush();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST_F(PipelineTest, ALargeReplyIsReadAndItsMemoryGivenBack) {
  constexpr size_t kBytes = PRM_TEST_SANITIZED ? 20 << 20 : 100 << 20;
  const auto connection = Connect();
  ASSERT_TRUE(connection
                  ->Command({"EVAL", "redis.call('SET', 'large', string.rep('0123456789', ARGV[1]))", "0",
                             std::to_string(kBytes / 10)})
                  .ok());
  const size_t before = ResidentBytes();
  for (int round = 0; round < 2; ++round) {
    const auto reply = connection->Command({"GET", "large"}, {uint64_t{200} << 20});
    ASSERT_TRUE(reply.ok()) << reply.error().message;
    ASSERT_EQ(reply.value().String()->size(), kBytes);
    EXPECT_EQ(reply.value().String()->substr(kBytes - 20), "01234567890123456789");
  }
  const std::string large(kBytes, 'y');
  ASSERT_TRUE(connection->Command({"SET", "large", large}).ok());
  EXPECT_EQ(connection->Command({"STRLEN", "large"}).value().Integer(), static_cast<int64_t>(kBytes));
  if (!PRM_TEST_SANITIZED) {
    EXPECT_LT(ResidentBytes(), before + kBytes + (90 << 20));  // `large` itself, and what malloc keeps
  }
}

// One reply that takes longer than the timeout, in pieces that do not.
TEST_F(PipelineTest, ProgressPutsOffTheTimeout) {
  const std::string large(512 << 10, 'x');
  test::RedisClient(server_.port()).Command({"SET", "large", large});
  const test::RedisProxy slow(
      server_.port(), [](const auto&) {}, std::chrono::milliseconds(150));
  const auto connection = Connect(700, slow.port());
  const auto start = std::chrono::steady_clock::now();
  const auto reply = connection->Command({"GET", "large"}, {uint64_t{200} << 20});
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_TRUE(reply.value().String() == large);
  EXPECT_GT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1000));
}

TEST_F(PipelineTest, AServerThatStopsIsATimeout) {
  const auto connection = Connect(300);
  for (int i = 0; i < 1000; ++i) connection->Append({"PING"});
  ASSERT_TRUE(connection->Receive().ok());
  for (int i = 0; i < 10; ++i) connection->Append({"ECHO", std::string(1 << 20, 'x')});
  server_.Pause();
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    const auto reply = connection->Receive();
    if (reply.ok()) continue;
    EXPECT_EQ(reply.error().code, ErrorCode::kTimeout);
    EXPECT_EQ(reply.error().message,
              "Redis at " + connection->address() + " did not answer command \"ECHO\" within 300 ms");
    break;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1500));
}

TEST_F(PipelineTest, AServerThatDiesIsAConnectionFailure) {
  const auto connection = Connect();
  for (int i = 0; i < 1000; ++i) connection->Append({"PING"});
  ASSERT_TRUE(connection->Receive().ok());
  connection->Append({"DEBUG", "SLEEP", "10"});
  connection->Flush();
  server_.Kill();
  int answers = 1;
  for (;;) {
    const auto reply = connection->Receive();
    if (reply.ok()) {
      ++answers;
      continue;
    }
    EXPECT_EQ(reply.error().code, ErrorCode::kConnectionFailure);
    EXPECT_EQ(reply.error().message, "connection to Redis at " + connection->address() + " was lost");
    break;
  }
  EXPECT_LE(answers, 1000);
  const auto again = connection->Command({"PING"});
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, ErrorCode::kConnectionFailure);
}

}  // namespace
}  // namespace prm::redis
