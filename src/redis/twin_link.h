// Another replication link of the same name. Two servers that are exact copies of each other give their links
// the same name, and only Redis sees both.
#pragma once

#include <optional>
#include <string>

#include "core/status.h"
#include "redis/connection.h"

namespace prm::redis {

// Gives a connection, which is about to become a link, a name without spaces, and looks for a link that has
// this name already and has been heard of within the last two seconds: a link acknowledges each second, while
// one whose end the server has not noticed is silent. Returns the address of such a link. Nothing: there is
// none, or the server does not let this user look (CLIENT LIST TYPE replica, Redis 5.0). Errors: those of
// Connection::Command but kPermissionDenied and kServerError.
Result<std::optional<std::string>> FindTwinLink(Connection& connection, const std::string& name);

}  // namespace prm::redis
