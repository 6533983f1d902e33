// Changes of keys whose family belongs to PostgreSQL: somebody still writes to Redis.
#pragma once

#include "pg/pg.h"
#include "redis/connection.h"
#include "store/batch.h"

namespace prm {

// Keeps the newest state of each key as a row of redis_migrate.late_write. The value that an earlier write
// has left there stays if this one is of an unknown value and older, or has only changed when the key
// expires. Of deletions it tells the reverse feed, which settles those of rows that are gone, too. Needs SPI;
// with the rights of the extension's owner.
void KeepLateWrites(const std::string &migration, const std::vector<LateWrite> &writes);

// Likewise of writes that neither Redis nor any row shows any more, and whose families may be Redis'. Those
// of a value that nobody knows have another state than kRead. In state both, such are left out that only
// change when a key expires; in other states, such that are older. Keys that are of no family are left out,
// too, which a pattern of a mapping of other databases may fit. Takes from `writes` what is not kept. Needs
// SPI; with the rights of the owner of the migration. Errors: those of SettleHarmless.
void KeepLostWrites(const Migration &migration, const Routing &routing, BatchStore &store,
                    std::vector<LateWrite> &writes);

// A live run calls this when it loads a new snapshot, because the changes since the last one cannot be had
// any more. Keys of families that have become PostgreSQL's since an earlier live run began are late writes if
// their rows do not show them. They were written in Redis, or, without a reverse feed, here; so kMostUnseen
// at most are kept of the families that have none, with a WARNING. Takes the others from `late`. Needs SPI;
// with the rights of the owner of the migration. Errors: those of SettleHarmless.
void KeepUnseenWrites(const Migration &migration, const Routing &routing, BatchStore &store, int64 run_id,
                      std::vector<LateWrite> &late);
constexpr int64 kMostUnseen = 10000;

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
