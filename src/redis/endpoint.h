// Host and port.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "redis/address_rule.h"

namespace prm::redis {

struct Endpoint {
  std::string host;
  int port = 0;
  // For a host that a peer named: the kind of the address of the host that the user named and that led to it.
  std::optional<AddressKind> named = {};
  bool operator==(const Endpoint& other) const { return host == other.host && port == other.port; }
};

// Whether a text from a peer may be the name of a host or an address: letters, digits and "-_.:%", 1 to 255
// of them.
bool IsHost(Bytes text);

// "a.example:7000, [::1]:7001, 10.0.0.5": an entry without a port has default_port. Errors:
// kInvalidArgument.
Result<std::vector<Endpoint>> ParseEndpoints(const std::string& text, int default_port);

}  // namespace prm::redis
