#include "redis/endpoint.h"

#include <gtest/gtest.h>

namespace prm::redis {
namespace {

std::string Text(const std::string& list) {
  const auto endpoints = ParseEndpoints(list, 26379);
  if (!endpoints.ok()) return endpoints.error().message;
  std::string text;
  for (const Endpoint& endpoint : endpoints.value()) {
    text += (text.empty() ? "" : " ") + endpoint.host + "|" + std::to_string(endpoint.port);
  }
  return text;
}

TEST(EndpointTest, ReadsHostsAddressesAndPorts) {
  EXPECT_EQ(Text("a.example"), "a.example|26379");
  EXPECT_EQ(Text("a.example:1,10.0.0.5:65535"), "a.example|1 10.0.0.5|65535");
  EXPECT_EQ(Text(" [::1]:7000 ,\tfe80::1 , [::2]"), "::1|7000 fe80::1|26379 ::2|26379");
}

TEST(EndpointTest, RefusesWhatIsNone) {
  for (const char* item : {"", ":6379", "a:0", "a:65536", "a:x", "a:", "[::1", "[::1]7", "/run/redis.sock"}) {
    EXPECT_EQ(Text(item), "\"" + std::string(item) + "\" is not a host with an optional port");
    EXPECT_NE(Text(std::string("b:1,") + item).find("is not a host"), std::string::npos);
  }
}

}  // namespace
}  // namespace prm::redis
