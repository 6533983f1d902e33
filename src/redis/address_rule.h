// Where a peer may send us: nodes of a cluster and Sentinels name others, who are then told the password.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"
#include "redis/resolver.h"

namespace prm::redis {

enum class AddressKind {
  kLoopback,
  kLinkLocal,
  kPrivate,  // RFC 1918, unique local (fc00::/7), shared (100.64.0.0/10), and for benchmarks (198.18.0.0/15)
  kPublic,
  kOther,  // of no host: unspecified, multicast, broadcast
};

// An IPv4 address within an IPv6 one (mapped, NAT64, 6to4) is of the kind of the IPv4 one.
AddressKind KindOf(const SocketAddress& address);

class AddressRule {
 public:
  // The default: addresses of the kind of the host that the user named; of a server whose certificate is
  // verified in full, private and public ones too.
  AddressRule() = default;

  // The server's option redirects_to: "any", or addresses and networks, "10.0.0.0/8, fd00::/8". It replaces
  // the default. Errors: kInvalidArgument.
  static Result<AddressRule> Parse(const std::string& text);

  // named: of the host that the user named. is_verified: verify-full.
  bool Allows(const SocketAddress& address, AddressKind named, bool is_verified) const;

  // The error for a host that has none but other addresses. where: host and port; address: one of its.
  // kPermissionDenied.
  static Error Refusal(const std::string& where, const SocketAddress& address, AddressKind named);

 private:
  // 128 bits, IPv4 mapped to ::ffff:0:0/96.
  using Bits = std::array<uint8_t, 16>;
  struct Network {
    Bits bits;
    unsigned prefix;
  };
  static Bits BitsOf(const SocketAddress& address);
  friend AddressKind KindOf(const SocketAddress& address);

  bool is_set_ = false;
  bool any_ = false;
  std::vector<Network> networks_;
};

}  // namespace prm::redis
