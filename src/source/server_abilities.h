// Which commands a server knows and the user may use.
#pragma once

#include <initializer_list>

#include "core/bytes.h"
#include "core/status.h"
#include "redis/connection.h"
#include "redis/info.h"

namespace prm::source {

struct ServerAbilities {
  bool has_pexpiretime = false;     // Redis 7.0
  bool has_field_expiries = false;  // HPEXPIRETIME: Redis 7.4, Valkey 9.0
  bool has_time = false;            // the user may use TIME, if it has_field_expiries
  bool valkey = false;              // which encoding payloads have
};

// Tries a command that changes nothing. An error about the key also shows that the command
// exists and is permitted. Nothing may be pending. Errors: those of Connection::Command, unless they say that
// the command is unknown or not permitted.
Result<bool> MayUse(redis::Connection& connection, std::initializer_list<Bytes> command);

// Tries what a server can do. info: nullptr if it may not be asked. Errors: those of MayUse.
Result<ServerAbilities> FindAbilities(redis::Connection& connection, const redis::ServerInfo* info);

}  // namespace prm::source
