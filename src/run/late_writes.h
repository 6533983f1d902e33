// Changes of keys whose family belongs to PostgreSQL: somebody still writes to Redis.
#pragma once

#include "pg/pg.h"
#include "redis/connection.h"
#include "store/batch_options.h"

namespace prm {

// Keeps the newest state of each key as a row of redis_migrate.late_write. Needs SPI; with the rights of the
// extension's owner.
void KeepLateWrites(const std::string &migration, const std::vector<LateWrite> &writes);

// A client that has written of late, as CLIENT LIST shows it; its texts have passed a TextGate.
struct WritingClient {
  std::string address, name, username, command;
};

// The clients of a master whose last command may write. The user needs +client|list. Errors: those of
// Connection::Command.
Result<std::vector<WritingClient>> FetchWritingClients(redis::Connection &connection);

// Needs SPI; with the rights of the extension's owner.
void KeepWritingClients(const std::string &migration, const std::vector<WritingClient> &clients);

}  // namespace prm
