// A dump file from which a replication stream can be followed: it tells its place in the server's history.
#pragma once

#include <cstdint>
#include <string>

#include "core/byte_spool.h"
#include "redis/info.h"
#include "redis/replication_point.h"

namespace prm::stream {

struct Seed {
  redis::ReplicationPoint point;
  int db = 0;  // that the stream has selected there
};

// Reads the file as far as its first key. Redis, from 4.0 on, notes the place while it has a backlog: redis
// 7.0 src/rdb.c, rdbPopulateSaveInfo. Errors: kInvalidArgument (it does not tell its place), those of
// rdb::FileReader.
Result<Seed> ReadSeed(ByteSource& file);

// Copies a dump file to `to`, which must be empty, and proves that the copy is whole: its format, its
// checksum and its end. most_bytes: it may not be larger. Errors: kTooLarge; kCorruptData, kUnsupported (see
// rdb::FileReader); those of both media.
Status CopyDump(ByteSource& from, ByteSpool& to, uint64_t most_bytes);

// Whether a server can go on from the seed, by its INFO replication: to ask it by PSYNC would start a full
// sync where it cannot. redis 7.0 src/replication.c, masterTryPartialResynchronization. Errors:
// kInvalidArgument, with the reason and what helps.
Status CheckContinues(const redis::ServerInfo& info, const Seed& seed, const std::string& address);

}  // namespace prm::stream
