#include "redis/sentinel.h"

#include <charconv>
#include <functional>
#include <map>
#include <optional>

namespace prm::redis {

namespace {

std::optional<int> ParsePort(Bytes text) {
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port <= 0 || port > 65535)
    return std::nullopt;
  return port;
}

// Sends a command to one Sentinel after another until `accept` takes the reply. A Sentinel may be down, or
// not know the master.
Status Ask(const SentinelOptions& options, Waiter& waiter, Bytes subcommand,
           const std::function<bool(const Connection&, const Reply&)>& accept) {
  std::string reasons;
  std::optional<std::string> hint;  // a hint that applies to all of them, or empty
  for (const Endpoint& sentinel : options.sentinels) {
    ConnectionOptions to = options.connection;
    to.host = sentinel.host;
    to.port = sentinel.port;
    std::string reason;
    auto connection = Connection::Open(to, waiter);
    const std::string own_hint = connection.ok() ? std::string() : connection.error().hint;
    hint = !hint || *hint == own_hint ? own_hint : std::string();
    if (!connection.ok()) {
      reason = connection.error().message + (connection.error().detail.empty() ? "" : ": ") +
               connection.error().detail;
    } else {
      const Result<Reply> reply =
          connection.value()->Command({"SENTINEL", subcommand, options.master}, kLargeReply);
      if (reply.ok() && accept(*connection.value(), reply.value())) return {};
      reason = HostAndPort(sentinel.host, sentinel.port) + ": ";
      if (!reply.ok()) {
        reason += reply.error().detail.empty() ? reply.error().message : reply.error().detail;
      } else {
        reason += reply.value().IsNil() ? "it knows no such master" : "it answers in an unknown form";
      }
    }
    if (!reason.empty() && reason.back() != '.') reason += '.';
    reasons += (reasons.empty() ? "" : " ") + reason;
  }
  if (!hint || hint->empty()) {
    hint =
        "Check the server's options sentinels and sentinel_master, and the user mapping's sentinel_username "
        "and sentinel_password.";
  }
  return Error{ErrorCode::kConnectionFailure, "no Sentinel says where master \"" + options.master + "\" is",
               reasons, *hint};
}

// SENTINEL REPLICAS: a list of name and value for each.
std::map<std::string, std::string> Fields(const ReplyView& list) {
  std::map<std::string, std::string> fields;
  for (size_t i = 0; i + 1 < list.size(); i += 2) {
    const auto name = list.element(i).String();
    const auto value = list.element(i + 1).String();
    if (name && value) fields[std::string(*name)] = *value;
  }
  return fields;
}

bool IsDown(const std::string& flags) {
  for (const char* sign : {"s_down", "o_down", "disconnected"}) {
    if (flags.find(sign) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

Result<Endpoint> FindMaster(const SentinelOptions& options, Waiter& waiter) {
  Endpoint master;
  const Status status =
      Ask(options, waiter, "GET-MASTER-ADDR-BY-NAME", [&](const Connection& from, const Reply& reply) {
        const Bytes host = reply.element(0).String().value_or("");
        const std::optional<int> port = ParsePort(reply.element(1).String().value_or(""));
        if (reply.size() != 2 || !port || !IsHost(host) || from.gate().Quotes(host)) return false;
        master = {std::string(host), *port, from.named()};
        return true;
      });
  if (!status.ok()) return status.error();
  return master;
}

Result<std::vector<Endpoint>> FindReplicas(const SentinelOptions& options, Waiter& waiter) {
  std::vector<Endpoint> replicas;
  const Status status = Ask(options, waiter, "REPLICAS", [&](const Connection& from, const Reply& reply) {
    if (!reply.IsArray()) return false;
    for (size_t i = 0; i < reply.size(); ++i) {
      auto fields = Fields(reply.element(i));
      const std::optional<int> port = ParsePort(fields["port"]);
      if (port && IsHost(fields["ip"]) && !from.gate().Quotes(fields["ip"]) && !IsDown(fields["flags"]))
        replicas.push_back({fields["ip"], *port, from.named()});
    }
    return true;
  });
  if (!status.ok()) return status.error();
  return replicas;
}

}  // namespace prm::redis
