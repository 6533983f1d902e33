#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "lib/cpp/certificates.h"
#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_cluster.h"
#include "redis/cluster_slots.h"
#include "redis/cluster_topology.h"
#include "redis/deployment.h"
#include "redis/sentinel.h"

namespace prm::redis {
namespace {

TEST(ClusterSlotsTest, AreWrittenAsRanges) {
  Slots slots;
  EXPECT_EQ(SlotsToText(slots), "-");
  slots.set(0);
  EXPECT_EQ(SlotsToText(slots), "0");
  slots.set(1).set(2).set(7).set(16382).set(16383);
  EXPECT_EQ(SlotsToText(slots), "0-2,7,16382-16383");
  EXPECT_EQ(SlotsToText(Slots().set()), "0-16383");
  for (const Slots& each : {Slots(), slots, Slots().set()}) {
    const auto read = SlotsFromText(SlotsToText(each));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read.value(), each);
  }
}

TEST(ClusterSlotsTest, RefuseWhatIsNoRange) {
  for (const char* text :
       {"", "x", "16384", "5-4", "1,", ",1", "1-", "-1", "1--2", "1 2", "0-99999999999999999999"}) {
    EXPECT_FALSE(SlotsFromText(text).ok()) << text;
  }
}

// The slots of these keys as the server itself computes them.
TEST(ClusterSlotsTest, KeysBelongWhereRedisSaysTheyDo) {
  const test::RedisServer server(
      {"--cluster-enabled", "yes", "--cluster-port", std::to_string(test::RedisServer::FreePort())});
  test::RedisClient client(server.port());
  const std::string keys[] = {"",
                              "a",
                              "123456789",
                              "{user}:1",
                              "user",
                              "a{}b",
                              "{}{x}",
                              "{{x}}",
                              "{x}{y}",
                              "a{b",
                              "a}b{",
                              "{x",
                              "}{x}",
                              std::string(1000, 'k'),
                              std::string("\0{\xff}\n", 5)};
  for (const std::string& key : keys) {
    EXPECT_EQ(static_cast<long long>(KeySlot(key)), client.Integer({"CLUSTER", "KEYSLOT", key})) << key;
  }
}

TEST(ClusterSlotsTest, EachSlotHasATag) {
  const std::vector<std::string> tags = SlotTags();
  ASSERT_EQ(tags.size(), kClusterSlots);
  for (size_t slot = 0; slot < kClusterSlots; ++slot) {
    EXPECT_EQ(KeySlot("a{" + tags[slot] + "}b"), slot);
    EXPECT_EQ(tags[slot].find_first_not_of("0123456789"), std::string::npos);
  }
}

class ClusterTest : public testing::Test {
 protected:
  std::unique_ptr<Connection> Connect(int port, const std::string& user = {}) {
    ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = port;
    options.username = user;
    auto connection = Connection::Open(options, waiter_);
    if (!connection.ok()) throw std::runtime_error(connection.error().message);
    return std::move(connection.value());
  }

  ClusterTopology Fetch(int port, const std::string& user = {}) {
    auto topology = FetchTopology(*Connect(port, user), {"127.0.0.1", port}, false);
    if (!topology.ok()) throw std::runtime_error(topology.error().message);
    return topology.value();
  }

  test::PollWaiter waiter_;
};

TEST_F(ClusterTest, ShardsAndSlotsTellTheSame) {
  test::RedisCluster cluster(3);
  // CLUSTER SHARDS came with Redis 7.0, and may be forbidden.
  cluster.client(1).Command({"ACL", "SETUSER", "old", "on", "nopass", "~*", "+@all", "-cluster|shards"});
  const ClusterTopology by_shards = Fetch(cluster.server(1).port());
  const ClusterTopology by_slots = Fetch(cluster.server(1).port(), "old");
  for (const ClusterTopology& topology : {by_shards, by_slots}) {
    ASSERT_EQ(topology.shards.size(), 3U);
    Slots all;
    for (size_t node = 0; node < 3; ++node) {
      const ClusterShard& shard = topology.shards[node];
      EXPECT_EQ(shard.master.id, cluster.id(node));
      EXPECT_EQ(shard.master.endpoint.port, cluster.server(node).port());
      EXPECT_EQ(shard.master.endpoint.host, "127.0.0.1");
      EXPECT_TRUE(shard.replicas.empty());
      EXPECT_TRUE((shard.slots & all).none());
      EXPECT_EQ(topology.ShardOf(cluster.id(node)), &shard);
      all |= shard.slots;
    }
    EXPECT_TRUE(all.all());
    EXPECT_EQ(topology.ShardOf(std::string(40, '0')), nullptr);
  }
}

TEST_F(ClusterTest, TellsSlotsThatAreBeingMovedFromBothSides) {
  test::RedisCluster cluster(2);
  const auto moving = [&](size_t node) {
    const auto slots = FetchSlotMoves(*Connect(cluster.server(node).port()));
    return slots.ok() ? SlotsToText(slots.value().under_way) : slots.error().message;
  };
  EXPECT_EQ(moving(0), "-");
  cluster.BeginMove(77, 0, 1);
  cluster.BeginMove(4000, 0, 1);
  EXPECT_EQ(moving(0), "77,4000");
  EXPECT_EQ(moving(1), "77,4000");
  cluster.FinishMove(77, 0, 1);
  EXPECT_EQ(moving(0), "4000");
  EXPECT_TRUE(Fetch(cluster.server(1).port()).ShardOf(cluster.id(1))->slots[77]);
}

TEST_F(ClusterTest, TellsThatASlotHasComeBack) {
  test::RedisCluster cluster(2);
  const auto epoch = [&](size_t node) {
    return FetchSlotMoves(*Connect(cluster.server(node).port())).value().epoch;
  };
  const auto move = [&](size_t from, size_t to) {
    cluster.BeginMove(77, from, to);
    cluster.FinishMove(77, from, to);
  };
  const uint64_t before = epoch(0);
  EXPECT_GT(before, 0u);
  move(0, 1);
  EXPECT_EQ(epoch(0), before);
  move(1, 0);
  EXPECT_GT(epoch(0), before);
}

// A node has a port for TLS beside the plain one; clients that use TLS are redirected there.
TEST_F(ClusterTest, NamesThePortsForTls) {
  test::Certificates certificates;
  certificates.Make("node", "IP:127.0.0.1");
  const int tls_port = test::RedisServer::FreePort();
  const test::RedisServer node(
      {"--cluster-enabled", "yes", "--cluster-port", std::to_string(test::RedisServer::FreePort()),
       "--tls-port", std::to_string(tls_port), "--tls-cert-file", certificates.certificate("node"),
       "--tls-key-file", certificates.key("node"), "--tls-ca-cert-file", certificates.certificate("ca"),
       "--tls-auth-clients", "no", "--tls-cluster", "yes"});
  test::RedisClient client(node.port());
  client.Command({"CLUSTER", "ADDSLOTSRANGE", "0", "16383"});
  client.Command({"ACL", "SETUSER", "old", "on", "nopass", "~*", "+@all", "-cluster|shards"});
  Deployment deployment;
  deployment.seeds = {{"127.0.0.1", tls_port}};
  deployment.connection.tls.mode = TlsMode::kVerifyFull;
  deployment.connection.tls.ca_file = certificates.certificate("ca");
  for (const char* user : {"", "old"}) {
    deployment.connection.username = user;
    const auto topology = FindTopology(deployment, waiter_);
    ASSERT_TRUE(topology.ok()) << topology.error().message << topology.error().detail;
    ASSERT_EQ(topology.value().shards.size(), 1U);
    EXPECT_EQ(topology.value().shards[0].master.endpoint, (Endpoint{"127.0.0.1", tls_port}));
    EXPECT_TRUE(OpenNode(deployment, topology.value().shards[0].master.endpoint, waiter_).ok());
  }
}

TEST_F(ClusterTest, AServerThatIsNoClusterIsNamed) {
  const test::RedisServer server;
  const auto topology = FetchTopology(*Connect(server.port()), {"127.0.0.1", server.port()}, false);
  ASSERT_FALSE(topology.ok());
  EXPECT_EQ(topology.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(topology.error().message,
            "Redis at 127.0.0.1:" + std::to_string(server.port()) + " is not a node of a cluster");
}

std::string Bulk(const std::string& text) {
  return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

// Well-formed answers of CLUSTER and SENTINEL whose host, port or id is none, or quotes the password.
TEST_F(ClusterTest, LeadsOnlyToHostsAndPorts) {
  constexpr char kSecret[] = "c0ffee00decade";
  std::string host, port, id;
  bool shards = false;
  const auto cluster = [&]() -> std::string {
    if (!shards) return "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n" + Bulk(host) + ":" + port + "\r\n" + Bulk(id);
    return "*1\r\n*4\r\n" + Bulk("slots") + "*2\r\n:0\r\n:16383\r\n" + Bulk("nodes") + "*1\r\n*8\r\n" +
           Bulk("id") + Bulk(id) + Bulk("endpoint") + Bulk(host) + Bulk("port") + ":" + port + "\r\n" +
           Bulk("role") + Bulk("master");
  };
  test::HostileRedis server([&](const test::HostileRedis::Arguments& arguments) {
    const std::string name = test::HostileRedis::NameOf(arguments);
    if (name == "SENTINEL GET-MASTER-ADDR-BY-NAME")
      return test::HostileRedis::Answer{"*2\r\n" + Bulk(host) + Bulk(port)};
    if (name == "SENTINEL REPLICAS")
      return test::HostileRedis::Answer{"*1\r\n*4\r\n" + Bulk("ip") + Bulk(host) + Bulk("port") + Bulk(port)};
    if (name == (shards ? "CLUSTER SHARDS" : "CLUSTER SLOTS")) return test::HostileRedis::Answer{cluster()};
    return test::HostileRedis::Answer{arguments[0] == "AUTH" ? "+OK\r\n" : "-ERR unknown command\r\n"};
  });
  SentinelOptions sentinels;
  sentinels.master = "m";
  sentinels.sentinels = {{"127.0.0.1", server.port()}};
  sentinels.connection.password = kSecret;
  ConnectionOptions options = sentinels.connection;
  options.host = "127.0.0.1";
  options.port = server.port();
  // How many of the four lead anywhere. No message shows the peer's text.
  const auto led = [&] {
    int count = 0;
    const auto take = [&](bool leads, const Error& error) {
      count += leads ? 1 : 0;
      for (const std::string& text : {error.message, error.detail, error.hint}) {
        EXPECT_EQ(text.find(kSecret), std::string::npos) << text;
        for (const char c : text) EXPECT_TRUE(c >= ' ' && c < 0x7f) << text;
      }
    };
    for (const bool by_shards : {false, true}) {
      shards = by_shards;
      auto connection = Connection::Open(options, waiter_);
      if (!connection.ok()) throw std::runtime_error(connection.error().message);
      const auto topology = FetchTopology(*connection.value(), {"127.0.0.1", server.port()}, false);
      take(topology.ok() && !topology.value().shards.empty(), topology.ok() ? Error{} : topology.error());
    }
    const auto master = FindMaster(sentinels, waiter_);
    take(master.ok(), master.ok() ? Error{} : master.error());
    const auto replicas = FindReplicas(sentinels, waiter_);
    take(replicas.ok() && !replicas.value().empty(), replicas.ok() ? Error{} : replicas.error());
    return count;
  };
  const auto set = [&](const std::string& a_host, const std::string& a_port, const std::string& an_id) {
    host = a_host;
    port = a_port;
    id = an_id;
  };
  const std::string good_id(40, 'a');
  set("10.0.0.1", "6379", good_id);
  EXPECT_EQ(led(), 4);
  for (const char* bad : {"0", "-1", "65536", "70000", "4294973675", "-4294960917"}) {
    set("10.0.0.1", bad, good_id);
    EXPECT_EQ(led(), 0) << bad;
  }
  for (const std::string& bad : std::vector<std::string>{"10.0.0.1\nLOG:  forged", "caf\xc3", "a b",
                                                         std::string(kSecret) + ".example", "h'x"}) {
    set(bad, "6379", good_id);
    EXPECT_EQ(led(), 0) << bad;
  }
  for (const std::string& bad : {std::string(39, 'a'), std::string(39, 'a') + "\n", std::string(40, '\xff'),
                                 kSecret + std::string(26, 'a'), std::string()}) {
    set("10.0.0.1", "6379", bad);
    EXPECT_EQ(led(), 2) << bad;  // Sentinels name no id
  }
}

TEST_F(ClusterTest, TriesOneSeedAfterTheOther) {
  test::RedisCluster cluster(1);
  Deployment deployment;
  const int nobody = test::RedisServer::FreePort();
  deployment.seeds = {{"127.0.0.1", nobody}, {"127.0.0.1", cluster.server(0).port()}};
  EXPECT_TRUE(FindTopology(deployment, waiter_).ok());
  EXPECT_TRUE(OpenServer(deployment, waiter_).ok());
  deployment.seeds.push_back({"127.0.0.1", nobody});
  deployment.seeds.erase(deployment.seeds.begin() + 1);
  const auto none = FindTopology(deployment, waiter_);
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.error().detail.find("Before it: could not connect to Redis at 127.0.0.1:" +
                                     std::to_string(nobody)),
            std::string::npos)
      << none.error().detail;
}

}  // namespace
}  // namespace prm::redis
