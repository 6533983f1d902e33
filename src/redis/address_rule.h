// Which addresses a peer may redirect us to: nodes of a cluster and Sentinels name other servers, which are
// then sent the password.
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
  kOther,  // not a host: unspecified, multicast, broadcast
};

// An IPv4 address within an IPv6 one (mapped, NAT64, 6to4) has the kind of the IPv4 address.
AddressKind KindOf(const SocketAddress& address);

class AddressRule {
 public:
  // The default: addresses of the same kind as that of the host that the user named; with verify-full also
  // private and public ones.
  AddressRule() = default;

  // The server's option redirects_to: "any", or addresses and networks, "10.0.0.0/8, fd00::/8". It replaces
  // the default. Errors: kInvalidArgument.
  static Result<AddressRule> Parse(const std::string& text);

  // named: the kind of the host that the user named. is_verified: verify-full.
  bool Allows(const SocketAddress& address, AddressKind named, bool is_verified) const;

  // The error, kPermissionDenied, for a host without an allowed address. where: host and port; address: one
  // of its addresses.
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
