// The part of preflight that is about following a server's replication stream.
#pragma once

#include <functional>

#include "pg/pg.h"
#include "redis/connection.h"
#include "redis/info.h"

namespace prm {

enum class CheckStatus { kOk, kWarn, kFail };

// Adds a row: the check's name, its result, what was found, and a command that helps (empty: none).
using AddCheck = std::function<void(const char *check, CheckStatus status, const std::string &detail,
                                    const std::string &hint)>;

// Checks a server that a migration follows, or takes snapshots of, by source replication: the settings that
// end a link or make it begin anew, what the link itself does to the server, the room on the disk of the
// database, and the rights of a replica. username: as whom the connection is logged in. A problem of Redis is
// a row; errors: 08006, 08000 when the connection is lost.
void CheckReplication(redis::Connection &connection, const redis::ServerInfo &info,
                      const std::string &username, const AddCheck &add);

}  // namespace prm
