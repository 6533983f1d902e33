#include "redis/info.h"

#include <gtest/gtest.h>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"

namespace prm::redis {
namespace {

TEST(ServerInfo, ParsesFieldsAndKeyspace) {
  const ServerInfo info(
      "# Server\r\nredis_version:6.2.14\r\nexecutable:/usr/bin/a:b\r\n\r\n# Memory\r\nmaxmemory:1048576\r\n"
      "# Keyspace\r\ndb10:keys=7,expires=0,avg_ttl=0\r\ndb2:keys=3,expires=1,avg_ttl=99,subexpiry=4\r\n"
      "db0_distrib_strings_items:1=2\r\n");
  EXPECT_EQ(info.version(), "6.2.14");
  EXPECT_EQ(info.Get("executable"), "/usr/bin/a:b");
  EXPECT_EQ(info.maxmemory(), 1048576);
  EXPECT_EQ(info.run_id(), "");
  EXPECT_FALSE(info.GetInteger("redis_version").has_value());
  EXPECT_FALSE(info.loading());
  const auto databases = info.Keyspace();
  ASSERT_EQ(databases.size(), 2U);
  EXPECT_EQ(databases[0].db, 2);
  EXPECT_EQ(databases[0].keys, 3U);
  EXPECT_EQ(databases[0].expires, 1U);
  EXPECT_EQ(databases[1].db, 10);
  EXPECT_EQ(databases[1].keys, 7U);
}

TEST(ServerInfo, Headroom) {
  const auto headroom = [](const std::string& policy, const std::string& more) {
    return ServerInfo("maxmemory:1000\r\nmaxmemory_policy:" + policy + "\r\n" + more).headroom();
  };
  EXPECT_EQ(headroom("allkeys-lru", "used_memory:400\r\n"), 600);
  EXPECT_EQ(headroom("volatile-ttl", "used_memory:1400\r\nmem_not_counted_for_evict:500\r\n"), 100);
  EXPECT_EQ(headroom("allkeys-lru", "used_memory:1400\r\n"), -400);
  EXPECT_EQ(headroom("noeviction", "used_memory:400\r\n"), std::nullopt);
  EXPECT_EQ(headroom("allkeys-lru", ""), std::nullopt);
  EXPECT_EQ(ServerInfo("maxmemory:0\r\nused_memory:7\r\n").headroom(), std::nullopt);
}

TEST(ServerInfo, ReadsALiveServer) {
  const test::RedisServer server({"--maxmemory", "77mb"});
  test::RedisClient client(server.port());
  client.Command({"SET", "a", "1"});
  client.Command({"SET", "b", "1", "EX", "1000"});
  client.Command({"SELECT", "3"});
  client.Command({"SET", "c", "1"});

  test::PollWaiter waiter;
  ConnectionOptions options;
  options.host = "127.0.0.1";
  options.port = server.port();
  auto connection = Connection::Open(options, waiter);
  ASSERT_TRUE(connection.ok()) << connection.error().message;
  const auto info = FetchInfo(*connection.value());
  ASSERT_TRUE(info.ok()) << info.error().message;
  EXPECT_EQ(info.value().run_id().size(), 40U);
  EXPECT_EQ(info.value().role(), "master");
  EXPECT_EQ(info.value().maxmemory(), 77 << 20);
  EXPECT_FALSE(info.value().loading());
  EXPECT_EQ(info.value().GetInteger("process_id"), server.pid());
  const auto databases = info.value().Keyspace();
  ASSERT_EQ(databases.size(), 2U);
  EXPECT_EQ(databases[0].keys, 2U);
  EXPECT_EQ(databases[0].expires, 1U);
  EXPECT_EQ(databases[1].db, 3);
}

}  // namespace
}  // namespace prm::redis
