// Links of the same name at a real server, from one that is alive, is silent or has another name.
#include "redis/twin_link.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "redis/replication_link.h"

namespace prm::redis {
namespace {

class TwinLinkTest : public testing::Test {
 protected:
  std::unique_ptr<Connection> Connect(const std::string& username = {}) {
    ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = server_.port();
    options.username = username;
    options.password = username;
    auto connection = Connection::Open(options, waiter_);
    if (!connection.ok()) throw std::runtime_error(connection.error().message);
    return std::move(connection.value());
  }

  // The address of a link of that name; empty: none is seen.
  static std::string Find(Connection& connection, const std::string& name) {
    const auto found = FindTwinLink(connection, name);
    EXPECT_TRUE(found.ok()) << found.error().message;
    return found.ok() ? found.value().value_or("") : "";
  }

  test::RedisServer server_{std::vector<std::string>{"--repl-diskless-sync-delay", "0"}};
  test::PollWaiter waiter_;
};

TEST_F(TwinLinkTest, IsFoundWhileItIsAlive) {
  const auto first = Connect();
  EXPECT_EQ(Find(*first, "name"), "");
  const auto second = Connect();
  EXPECT_EQ(Find(*second, "name"), "") << "the first connection is no link yet";
  const auto link = ReplicationLink::Open(*first, std::nullopt);
  ASSERT_TRUE(link.ok()) << link.error().message;
  EXPECT_EQ(Find(*Connect(), "other"), "");
  EXPECT_EQ(Find(*second, "name").rfind("127.0.0.1:", 0), 0U);
  std::this_thread::sleep_for(std::chrono::milliseconds(4500));
  EXPECT_EQ(Find(*second, "name"), "") << "a link that is silent may be one that is lost";
}

TEST_F(TwinLinkTest, IsNotSeenWithoutTheRight) {
  test::RedisClient client(server_.port());
  client.Command({"ACL", "SETUSER", "mig", "on", ">mig", "+psync", "+replconf", "+client|setname"});
  client.Command({"ACL", "SETUSER", "less", "on", ">less", "+ping"});
  const auto first = Connect("mig");
  EXPECT_EQ(Find(*first, "name"), "");
  ASSERT_TRUE(ReplicationLink::Open(*first, std::nullopt).ok());
  EXPECT_EQ(Find(*Connect("mig"), "name"), "");
  EXPECT_EQ(Find(*Connect("less"), "name"), "");
}

}  // namespace
}  // namespace prm::redis
