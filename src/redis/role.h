// Whether a server is a master or a replica.
#pragma once

#include <optional>

#include "core/status.h"
#include "redis/connection.h"

namespace prm::redis {

struct Role {
  bool is_master = false;
  bool has_link = true;  // of a replica: it is connected to its master and has all of its data
};

// Asks with ROLE or, where that is refused, INFO; nullopt if both are refused. Errors: those of
// Connection::Command.
Result<std::optional<Role>> FetchRole(Connection& connection);

enum class ReadFrom {
  kAny,  // whatever the server is
  kMaster,
  kReplica,
};

// Whether the server has the wanted role; an unknown role is accepted. Errors: kUnavailable (another role;
// with may_be_stale false, a replica without a link), those of FetchRole.
Status CheckRole(Connection& connection, ReadFrom wanted, bool may_be_stale);

}  // namespace prm::redis
