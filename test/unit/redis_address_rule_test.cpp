#include "redis/address_rule.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <string>

namespace prm::redis {
namespace {

SocketAddress At(const std::string& text) {
  SocketAddress address{};
  const bool is_v4 =
      inet_pton(AF_INET, text.c_str(), &reinterpret_cast<sockaddr_in*>(&address.storage)->sin_addr) == 1;
  address.storage.ss_family = is_v4 ? AF_INET : AF_INET6;
  if (!is_v4) {
    EXPECT_EQ(
        inet_pton(AF_INET6, text.c_str(), &reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_addr), 1)
        << text;
  }
  return address;
}

TEST(AddressRuleTest, KnowsTheKinds) {
  for (const char* text :
       {"127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"})
    EXPECT_EQ(KindOf(At(text)), AddressKind::kLoopback) << text;
  for (const char* text : {"169.254.169.254", "fe80::1", "febf::1", "::ffff:169.254.169.254"})
    EXPECT_EQ(KindOf(At(text)), AddressKind::kLinkLocal) << text;
  for (const char* text :
       {"10.0.0.1", "172.16.0.1", "172.31.255.1", "192.168.1.1", "100.64.0.1", "100.127.0.1", "198.18.0.1",
        "fc00::1", "fd00:ec2::254", "fec0::1", "::ffff:10.1.2.3"})
    EXPECT_EQ(KindOf(At(text)), AddressKind::kPrivate) << text;
  for (const char* text :
       {"8.8.8.8", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2001:db8::1", "::ffff:8.8.8.8"})
    EXPECT_EQ(KindOf(At(text)), AddressKind::kPublic) << text;
  for (const char* text : {"0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:0.0.0.0"})
    EXPECT_EQ(KindOf(At(text)), AddressKind::kOther) << text;
}

TEST(AddressRuleTest, LeadsToTheSameKindUnlessTheCertificateDecides) {
  const AddressRule rule;
  EXPECT_TRUE(rule.Allows(At("127.0.0.2"), AddressKind::kLoopback, false));
  EXPECT_TRUE(rule.Allows(At("10.0.0.2"), AddressKind::kPrivate, false));
  EXPECT_TRUE(rule.Allows(At("8.8.8.8"), AddressKind::kPublic, false));
  EXPECT_FALSE(rule.Allows(At("8.8.8.8"), AddressKind::kPrivate, false));
  EXPECT_FALSE(rule.Allows(At("10.0.0.2"), AddressKind::kPublic, false));
  EXPECT_FALSE(rule.Allows(At("10.0.0.2"), AddressKind::kLoopback, false));
  EXPECT_TRUE(rule.Allows(At("10.0.0.2"), AddressKind::kPublic, true));
  for (const char* text : {"127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0"}) {
    EXPECT_FALSE(rule.Allows(At(text), AddressKind::kPublic, true)) << text;
    EXPECT_FALSE(rule.Allows(At(text), AddressKind::kPrivate, true)) << text;
  }
}

TEST(AddressRuleTest, AnOptionSaysWhere) {
  const auto rule = AddressRule::Parse("10.20.0.0/16, 2001:db8::/33,192.0.2.7");
  ASSERT_TRUE(rule.ok());
  for (const char* text : {"10.20.255.1", "::ffff:10.20.0.1", "2001:db8:7fff::1", "192.0.2.7"})
    EXPECT_TRUE(rule.value().Allows(At(text), AddressKind::kPublic, false)) << text;
  for (const char* text : {"10.21.0.1", "2001:db8:8000::1", "192.0.2.8", "127.0.0.1"})
    EXPECT_FALSE(rule.value().Allows(At(text), AddressKind::kLoopback, true)) << text;
  // NAT64 makes an IPv6 address of an IPv4 one, in the option or of the host.
  const auto nat64 = AddressRule::Parse("10.20.0.0/16, 64:ff9b::198.51.100.0/120");
  ASSERT_TRUE(nat64.ok());
  for (const char* text :
       {"64:ff9b::10.20.0.1", "198.51.100.7", "64:ff9b::198.51.100.7", "::ffff:198.51.100.7"})
    EXPECT_TRUE(nat64.value().Allows(At(text), AddressKind::kPublic, false)) << text;
  for (const char* text : {"64:ff9b::10.21.0.1", "198.51.101.7", "64:ff9b:1::10.20.0.1"})
    EXPECT_FALSE(nat64.value().Allows(At(text), AddressKind::kLoopback, true)) << text;
  for (const char* text : {"64:ff9b::/32", "64:ff9b::/96"}) {
    const auto all_of_nat64 = AddressRule::Parse(text);
    ASSERT_TRUE(all_of_nat64.ok()) << text;
    EXPECT_TRUE(all_of_nat64.value().Allows(At("64:ff9b::192.0.2.1"), AddressKind::kLoopback, false)) << text;
    EXPECT_FALSE(all_of_nat64.value().Allows(At("192.0.2.1"), AddressKind::kLoopback, false)) << text;
  }
  const auto any = AddressRule::Parse("any");
  ASSERT_TRUE(any.ok());
  EXPECT_TRUE(any.value().Allows(At("169.254.169.254"), AddressKind::kPublic, false));
  for (const char* text :
       {"", "10.0.0.0/33", "10.0.0.0/", "host.example", "10.0.0.0/8,", "::/129", "10.0.0/8", "any/1"})
    EXPECT_FALSE(AddressRule::Parse(text).ok()) << text;
}

TEST(AddressRuleTest, TheRefusalNamesAddressAndOption) {
  const Error error =
      AddressRule::Refusal("evil.example:6379", At("169.254.169.254"), AddressKind::kLoopback);
  EXPECT_EQ(error.code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(error.message, "redirect to evil.example:6379 was refused");
  EXPECT_NE(error.hint.find("redirects_to '169.254.169.254'"), std::string::npos);
}

}  // namespace
}  // namespace prm::redis
