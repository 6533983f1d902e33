// Streams: listpacks of entries, then the stream's counters, then its consumer groups.
#pragma once

#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/value.h"

namespace prm::rdb {

// Which of the five layouts: each adds fields to the one before.
enum class StreamLayout {
  kListpacks,   // RDB type 15, Redis 5.0
  kListpacks2,  // RDB type 19, Redis 7.0: first id, greatest deleted id, entries added, entries read by
                // groups
  kListpacks3,  // RDB type 21, Redis 7.2: active time of consumers
  kListpacks4,  // RDB type 26, Redis 8.6: ids that producers have sent, to detect duplicates
  kListpacks5,  // RDB type 27, Redis 8.8: pending entries that belong to no consumer
};

// Passes the entries that are not deleted to OnStreamEntry, then OnStreamInfo, then for each group
// OnStreamGroup, and for each consumer of it OnStreamConsumer and OnStreamPending for its pending entries by
// id; then OnStreamPending for those of no consumer. Skips the ids that producers have sent. For data that
// kListpacks lacks: first_id is the first entry's, max_deleted_id zero, entries_added the length,
// entries_read -1. kCorruptData. Format: redis 8.8 src/rdb.c rdbSaveObject, src/t_stream.c streamAppendItem.
Status DecodeStream(StreamLayout layout, ByteReader& reader, ValueVisitor& visitor);

// Skips a stream.
Status SkipStream(StreamLayout layout, ByteReader& reader);

}  // namespace prm::rdb
