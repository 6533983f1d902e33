// Host names to addresses, without blocking.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "core/status.h"
#include "redis/deadline.h"
#include "redis/waiter.h"

namespace prm::redis {

struct SocketAddress {
  sockaddr_storage storage;
  socklen_t length;
};

// The address as digits, without port: "10.0.0.5", "::1".
std::string AddressText(const SocketAddress& address);

// The addresses of a host, best first (RFC 6724), each with the port. A numeric host is not looked up; names
// are looked up with c-ares in /etc/hosts and DNS, according to /etc/nsswitch.conf and /etc/resolv.conf.
// name_servers ("127.0.0.1:53,...") replaces those of /etc/resolv.conf when not empty; tests need it. Errors:
// kTimeout, kConnectionFailure (no such host, or no name server answered properly).
Result<std::vector<SocketAddress>> Resolve(const std::string& host, int port, const Deadline& deadline,
                                           Waiter& waiter, const std::string& name_servers = {});

}  // namespace prm::redis
