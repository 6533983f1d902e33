#include "redis/role.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"

namespace prm::redis {
namespace {

class RoleTest : public testing::Test {
 protected:
  std::unique_ptr<Connection> Connect(int port) {
    ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = port;
    auto connection = Connection::Open(options, waiter_);
    if (!connection.ok()) throw std::runtime_error(connection.error().message);
    return std::move(connection.value());
  }

  // "" or the message.
  std::string Check(int port, ReadFrom wanted, bool may_be_stale = false) {
    const Status status = CheckRole(*Connect(port), wanted, may_be_stale);
    if (status.ok()) return {};
    EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
    return status.error().message;
  }

  static std::string At(int port) { return "Redis at 127.0.0.1:" + std::to_string(port) + " is "; }

  test::PollWaiter waiter_;
};

// By ROLE, and by INFO where ROLE is refused.
class RoleOfEachKindTest : public RoleTest, public testing::WithParamInterface<std::vector<std::string>> {};

TEST_P(RoleOfEachKindTest, IsTold) {
  test::RedisServer master(GetParam());
  std::vector<std::string> arguments = {"--replicaof", "127.0.0.1", std::to_string(master.port())};
  arguments.insert(arguments.end(), GetParam().begin(), GetParam().end());
  const test::RedisServer replica(arguments);
  test::RedisClient client(replica.port());
  while (client.String({"INFO", "replication"}).find("master_link_status:up") == std::string::npos) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(Check(master.port(), ReadFrom::kAny), "");
  EXPECT_EQ(Check(master.port(), ReadFrom::kMaster), "");
  EXPECT_EQ(Check(master.port(), ReadFrom::kReplica), At(master.port()) + "a master, not a replica");
  EXPECT_EQ(Check(replica.port(), ReadFrom::kAny), "");
  EXPECT_EQ(Check(replica.port(), ReadFrom::kReplica), "");
  EXPECT_EQ(Check(replica.port(), ReadFrom::kMaster), At(replica.port()) + "a replica, not a master");
  master.Kill();
  while (client.String({"INFO", "replication"}).find("master_link_status:down") == std::string::npos) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(Check(replica.port(), ReadFrom::kReplica),
            At(replica.port()) + "a replica without a link to its master");
  EXPECT_EQ(Check(replica.port(), ReadFrom::kReplica, true), "");
}

INSTANTIATE_TEST_SUITE_P(Commands, RoleOfEachKindTest,
                         testing::Values(std::vector<std::string>(),
                                         std::vector<std::string>{"--rename-command", "ROLE", ""}));

TEST_F(RoleTest, AServerThatDoesNotTellMayBeRead) {
  const test::RedisServer server({"--rename-command", "ROLE", "", "--rename-command", "INFO", ""});
  EXPECT_EQ(Check(server.port(), ReadFrom::kMaster), "");
  EXPECT_EQ(Check(server.port(), ReadFrom::kReplica), "");
}

}  // namespace
}  // namespace prm::redis
