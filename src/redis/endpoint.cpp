#include "redis/endpoint.h"

#include <algorithm>
#include <charconv>

#include "core/bytes.h"
#include "core/printable.h"

namespace prm::redis {

namespace {

constexpr char kBlanks[] = " \t\r\n";

Bytes Trimmed(Bytes text) {
  const size_t begin = std::min(text.find_first_not_of(kBlanks), text.size());
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

// An address with more than one colon is IPv6; with a port it is in brackets.
bool ParseEndpoint(Bytes text, int default_port, Endpoint& endpoint) {
  Bytes host = text;
  Bytes port;
  if (!text.empty() && text.front() == '[') {
    const size_t end = text.find(']');
    if (end == Bytes::npos) return false;
    host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!port.empty() && port.front() != ':') return false;
  } else if (const size_t colon = text.find(':'); colon != Bytes::npos && colon == text.rfind(':')) {
    host = text.substr(0, colon);
    port = text.substr(colon);
  }
  endpoint = {std::string(host), default_port};
  if (!port.empty()) {
    port.remove_prefix(1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
    if (error != std::errc() || end != port.data() + port.size()) return false;
  }
  return !host.empty() && host.find('/') == Bytes::npos && endpoint.port > 0 && endpoint.port < 65536;
}

}  // namespace

bool IsHost(Bytes text) {
  constexpr char kMayStand[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:%";
  return !text.empty() && text.size() <= 255 && text.find_first_not_of(kMayStand) == Bytes::npos;
}

Result<std::vector<Endpoint>> ParseEndpoints(const std::string& text, int default_port) {
  std::vector<Endpoint> endpoints;
  for (Bytes rest = text;;) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const Bytes item = Trimmed(rest.substr(0, comma));
    if (!ParseEndpoint(item, default_port, endpoints.emplace_back())) {
      return Error{ErrorCode::kInvalidArgument,
                   "\"" + Printable(item) + "\" is not a host with an optional port",
                   {},
                   "Write host:port, [IPv6 address]:port or host, separated by commas."};
    }
    if (comma == rest.size()) return endpoints;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace prm::redis
