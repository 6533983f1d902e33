#include "redis/role.h"

#include "redis/info.h"

namespace prm::redis {

namespace {

bool IsRefusal(const Error& error) {
  return error.code == ErrorCode::kPermissionDenied || error.code == ErrorCode::kServerError;
}

}  // namespace

Result<std::optional<Role>> FetchRole(Connection& connection) {
  const Result<Reply> reply = connection.Command({"ROLE"});
  if (reply.ok()) {
    // redis.io/commands/role: "master", offset, replicas; "slave", host, port, state of the link, offset.
    const auto role = reply.value().element(0).String();
    if (!role) return connection.UnknownReply("ROLE");
    const bool is_master = *role == "master";
    return std::optional<Role>(
        Role{is_master, is_master || reply.value().element(3).String() == "connected"});
  }
  if (!reply.ok() && !IsRefusal(reply.error())) return reply.error();
  const Result<ServerInfo> info = FetchInfo(connection);
  if (!info.ok() && !IsRefusal(info.error())) return info.error();
  if (!info.ok() || info.value().role().empty()) return std::optional<Role>();
  const bool is_master = info.value().role() == "master";
  return std::optional<Role>(Role{is_master, is_master || info.value().Get("master_link_status") == "up"});
}

Status CheckRole(Connection& connection, ReadFrom wanted, bool may_be_stale) {
  if (wanted == ReadFrom::kAny) return {};
  const Result<std::optional<Role>> role = FetchRole(connection);
  if (!role.ok()) return role.error();
  if (!role.value()) return {};
  const auto unfit = [&](const std::string& what, const std::string& hint) {
    return Error{ErrorCode::kUnavailable, "Redis at " + connection.address() + " is " + what, {}, hint};
  };
  if (wanted == ReadFrom::kMaster && !role.value()->is_master) {
    return unfit("a replica, not a master", "After a failover it may take a moment until all nodes know.");
  }
  if (wanted == ReadFrom::kReplica && role.value()->is_master) {
    return unfit("a master, not a replica", "Set host and port to those of a replica, or drop read_from.");
  }
  if (!role.value()->has_link && !may_be_stale) {
    return unfit("a replica without a link to its master",
                 "Wait until it is connected again, or set the server's option stale_replica 'on'.");
  }
  return {};
}

}  // namespace prm::redis
