// The commands that a server takes from this user.
#pragma once

#include "core/status.h"
#include "redis/connection.h"
#include "sink/element_commands.h"

namespace prm::sink {

// Asks by commands that do nothing. Nothing may be pending on the connection. Errors: those of
// Connection::Command, unless they say that a command is unknown or forbidden.
Result<CommandAbilities> AskAbilities(redis::Connection& connection);

// "NOPERM this user has no permissions to run the 'restore' command", not "... to access one of the keys".
bool IsForbiddenCommand(Bytes error);

bool IsUnknownCommand(Bytes error);

}  // namespace prm::sink
