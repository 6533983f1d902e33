// Which keys a command writes, for the write commands of Redis 2.6 to 8.10 and Valkey 7.2 to 9.2.
//
// The table is built in: services forbid COMMAND, and a stream outlives the server that wrote it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "redis/connection.h"

namespace prm::redis {

// No command of a server. A feed of changes is written down as a stream of commands: this one has the names
// of keys that have changed in any way.
constexpr char kChangedCommand[] = "redis_migrate.changed";

// How many bytes of the name of a command a message shows.
inline constexpr size_t kShownNameBytes = 40;

enum class KeysFound {
  kAll,      // every key that the command may have written to; none for PUBLISH and the like
  kUnknown,  // the table does not have the command
  kHidden,   // the command may write to keys that it does not name: a script
  kInvalid,  // too few arguments, or numbers that are none: no server sends that
};

// Finds the positions of the keys that a command writes to, in ascending order, without those that it only
// reads. Of RENAME, MOVE and the like, also the key that goes away. arguments: the name first, in any case;
// `count` is their number where the last are missing, see StreamCommand.
KeysFound FindWrittenKeys(const std::vector<Bytes>& arguments, size_t count, std::vector<size_t>& positions);

// Whether two names of commands or options are the same: their case does not matter.
bool IsSameWord(Bytes a, Bytes b);

// Asks a server by COMMAND INFO for the name that a command has by itself: rename-command may have given it
// another one. Returns the same if the server does not know it. Nothing may be pending. Errors: those of
// Connection::Command.
Result<std::string> FetchName(Connection& connection, Bytes command);

// Asks a server by COMMAND GETKEYS for all keys of a command, read or written. Nothing may be pending.
// Errors: those of Connection::Command: kServerError (it does not know the command either),
// kPermissionDenied; kProtocol.
Result<std::vector<std::string>> FetchKeys(Connection& connection, const std::vector<std::string>& arguments);

}  // namespace prm::redis
