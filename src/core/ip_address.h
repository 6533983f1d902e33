// IP addresses as keys: one form for each host, and IPv6 folded to the prefix that one customer has.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace prm {

struct IpAddress {
  int bits = 0;                           // 32 for IPv4, 128 for IPv6
  std::array<unsigned char, 16> bytes{};  // network order; IPv4 uses the first four
};

// IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2: ::ffff:a.b.c.d) become the IPv4 address they stand for.
// Otherwise all IPv4 clients of a dual-stack listener would share one IPv6 prefix.
inline IpAddress Unmapped(IpAddress address) {
  static constexpr unsigned char kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (address.bits != 128 || memcmp(address.bytes.data(), kMapped, sizeof kMapped) != 0) return address;
  IpAddress ipv4;
  ipv4.bits = 32;
  memcpy(ipv4.bytes.data(), address.bytes.data() + sizeof kMapped, 4);
  return ipv4;
}

// The network of an IPv6 address, its host bits zero; an IPv4 address stays as it is.
inline IpAddress FoldedTo(int ipv6_prefix, IpAddress address) {
  if (address.bits != 128) return address;
  for (int i = 0; i < 16; ++i) {
    int kept = ipv6_prefix - 8 * i;
    if (kept < 8) address.bytes[i] &= kept <= 0 ? 0 : static_cast<unsigned char>(0xff00 >> kept);
  }
  return address;
}

}  // namespace prm
