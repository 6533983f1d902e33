#include "lib/cpp/hostile_fixture.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <optional>
#include <string>

#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/redis_client.h"

namespace prm::test {
namespace {

const std::string kNodeId(40, 'a');

// Text of a peer in an error is printable.
void ExpectPrintable(const Status& status, const std::string& where) {
  if (status.ok()) return;
  const std::string text = status.error().message + status.error().detail + status.error().hint;
  EXPECT_FALSE(status.error().message.empty()) << where;
  EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c != '\x7f'; }))
      << where << ": " << text;
}

// The server behind it is no cluster and no Sentinel: these are the answers of a cluster of one node and of
// a Sentinel.
std::optional<HostileRedis::Answer> AsClusterNode(const std::string& command, int port) {
  const std::string text = std::to_string(port);
  if (command == "CLUSTER SHARDS") return HostileRedis::Answer{"-ERR unknown subcommand\r\n"};
  if (command == "CLUSTER SLOTS") {
    return HostileRedis::Answer{"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:" + text +
                                "\r\n$40\r\n" + kNodeId + "\r\n"};
  }
  if (command == "CLUSTER NODES") {
    const std::string nodes = kNodeId + " 127.0.0.1:" + text + "@1 myself,master - 0 0 1 connected 0-16383\n";
    return HostileRedis::Answer{"$" + std::to_string(nodes.size()) + "\r\n" + nodes + "\r\n"};
  }
  if (command == "SENTINEL GET-MASTER-ADDR-BY-NAME") {
    return HostileRedis::Answer{"*2\r\n$9\r\n127.0.0.1\r\n$" + std::to_string(text.size()) + "\r\n" + text +
                                "\r\n"};
  }
  return std::nullopt;
}

}  // namespace

size_t AddressSpaceBytes() {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<size_t>(getpagesize());
}

HostileFixture::HostileFixture() {
  RedisClient client(server_.port());
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
}

void HostileFixture::TryAll(const std::function<Status()>& work) {
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
    for (const HostileRedis::Answer& answer : WrongAnswers()) {
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

}  // namespace prm::test
