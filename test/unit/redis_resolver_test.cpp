#include "redis/resolver.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <string>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_server.h"

namespace prm::redis {
namespace {

// A UDP port of 127.0.0.1 that takes queries and answers none.
class SilentNameServer {
 public:
  SilentNameServer() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    name_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~SilentNameServer() { close(fd_); }
  SilentNameServer(const SilentNameServer&) = delete;
  SilentNameServer& operator=(const SilentNameServer&) = delete;
  const std::string& name() const { return name_; }
  bool WasAsked() const {
    char query[512];
    return recv(fd_, query, sizeof(query), MSG_DONTWAIT) > 0;
  }

 private:
  int fd_;
  std::string name_;
};

class ResolverTest : public testing::Test {
 protected:
  test::PollWaiter waiter_;
};

TEST_F(ResolverTest, NumericAddressesAreNotLookedUp) {
  const SilentNameServer name_server;
  const auto v4 = Resolve("10.1.2.3", 6380, Deadline(1000), waiter_, name_server.name());
  ASSERT_TRUE(v4.ok());
  ASSERT_EQ(v4.value().size(), 1U);
  EXPECT_EQ(AddressText(v4.value()[0]), "10.1.2.3");
  EXPECT_EQ(ntohs(reinterpret_cast<const sockaddr_in*>(&v4.value()[0].storage)->sin_port), 6380);
  const auto v6 = Resolve("2001:db8::5", 6380, Deadline(1000), waiter_, name_server.name());
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(AddressText(v6.value().at(0)), "2001:db8::5");
  EXPECT_EQ(ntohs(reinterpret_cast<const sockaddr_in6*>(&v6.value()[0].storage)->sin6_port), 6380);
  EXPECT_FALSE(name_server.WasAsked());
}

TEST_F(ResolverTest, LocalhostIsLoopback) {
  const auto addresses = Resolve("localhost", 1234, Deadline(1000), waiter_);
  ASSERT_TRUE(addresses.ok()) << addresses.error().message;
  for (const SocketAddress& address : addresses.value()) {
    const std::string text = AddressText(address);
    EXPECT_TRUE(text == "127.0.0.1" || text == "::1") << text;
    EXPECT_EQ(ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port), 1234);
  }
}

TEST_F(ResolverTest, HostsFileComesBeforeDns) {
  std::ifstream hosts("/etc/hosts");
  for (std::string line; std::getline(hosts, line);) {
    std::istringstream fields(line);
    std::string address;
    std::string name;
    if (!(fields >> address >> name) || address[0] == '#' || address.find('.') == std::string::npos ||
        name.find("localhost") != std::string::npos) {
      continue;
    }
    const SilentNameServer name_server;
    const auto addresses = Resolve(name, 1, Deadline(1000), waiter_, name_server.name());
    ASSERT_TRUE(addresses.ok()) << addresses.error().message;
    EXPECT_EQ(AddressText(addresses.value()[0]), address);
    return;
  }
  GTEST_SKIP() << "/etc/hosts has no name but localhost";
}

TEST_F(ResolverTest, ANameServerThatNeverAnswersIsATimeout) {
  const SilentNameServer name_server;
  const auto start = std::chrono::steady_clock::now();
  const auto addresses = Resolve("redis.example", 6379, Deadline(400), waiter_, name_server.name());
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
  ASSERT_FALSE(addresses.ok());
  EXPECT_EQ(addresses.error().code, ErrorCode::kTimeout);
  EXPECT_EQ(addresses.error().message, "could not resolve host name \"redis.example\" within 400 ms");
  EXPECT_GE(elapsed.count(), 400);
  EXPECT_LT(elapsed.count(), 1400);
  EXPECT_TRUE(name_server.WasAsked());
}

TEST_F(ResolverTest, ADeadNameServerIsAFailure) {
  const std::string dead = "127.0.0.1:" + std::to_string(test::RedisServer::FreePort());
  const auto addresses = Resolve("redis.example", 6379, Deadline(5000), waiter_, dead);
  ASSERT_FALSE(addresses.ok());
  EXPECT_EQ(addresses.error().code, ErrorCode::kConnectionFailure);
  EXPECT_EQ(addresses.error().message, "could not resolve host name \"redis.example\"");
  EXPECT_FALSE(addresses.error().detail.empty());
}

}  // namespace
}  // namespace prm::redis
