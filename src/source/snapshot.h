// Receives the snapshot that a server sends to a replica, and keeps it as a dump file.
#pragma once

#include <cstdint>

#include "core/byte_spool.h"
#include "redis/replication_link.h"

namespace prm::source {

// Appends the snapshot to `spool`, which must be empty, until it is whole; what the link sends after it is
// left to ReplicationLink::ReadStream. It is read as it arrives, as a dump file: its format, its checksum and
// what must follow it prove that it is whole. Nothing that a value contains can end it. most_bytes: it may
// not be larger. Errors: kTooLarge; kCorruptData, kUnsupported (see rdb::FileReader); those of the link and
// of the spool.
Status ReceiveSnapshot(redis::ReplicationLink& link, ByteSpool& spool, uint64_t most_bytes);

}  // namespace prm::source
