#include "core/ip_address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <string>

namespace prm {
namespace {

IpAddress Parse(const std::string& text) {
  IpAddress address;
  bool ipv6 = text.find(':') != std::string::npos;
  address.bits = ipv6 ? 128 : 32;
  EXPECT_EQ(inet_pton(ipv6 ? AF_INET6 : AF_INET, text.c_str(), address.bytes.data()), 1) << text;
  return address;
}

std::string Text(const IpAddress& address) {
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(address.bits == 128 ? AF_INET6 : AF_INET, address.bytes.data(), text, sizeof text);
}

TEST(IpAddress, MappedAddressesAreIpv4) {
  EXPECT_EQ(Text(Unmapped(Parse("::ffff:192.0.2.7"))), "192.0.2.7");
  EXPECT_EQ(Text(Unmapped(Parse("192.0.2.7"))), "192.0.2.7");
  EXPECT_EQ(Text(Unmapped(Parse("::fffe:192.0.2.7"))), Text(Parse("::fffe:192.0.2.7")));
  EXPECT_EQ(Text(Unmapped(Parse("2001:db8::ffff:c000:207"))), Text(Parse("2001:db8::ffff:c000:207")));
}

TEST(IpAddress, Ipv6IsFoldedToAPrefix) {
  IpAddress address = Parse("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
  EXPECT_EQ(Text(FoldedTo(64, address)), "2001:db8:ffff:ffff::");
  EXPECT_EQ(Text(FoldedTo(56, address)), "2001:db8:ffff:ff00::");
  EXPECT_EQ(Text(FoldedTo(49, address)), "2001:db8:ffff:8000::");
  EXPECT_EQ(Text(FoldedTo(1, Parse("ffff::1"))), "8000::");
  EXPECT_EQ(Text(FoldedTo(127, address)), "2001:db8:ffff:ffff:ffff:ffff:ffff:fffe");
  EXPECT_EQ(Text(FoldedTo(128, address)), Text(address));
  EXPECT_EQ(Text(FoldedTo(64, Parse("192.0.2.7"))), "192.0.2.7");
}

}  // namespace
}  // namespace prm
