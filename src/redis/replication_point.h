// A place in the history of a server's data.
#pragma once

#include <cstdint>
#include <string>

#include "core/bytes.h"

namespace prm::redis {

struct ReplicationPoint {
  std::string id;       // of the history: 40 hex digits, new after a fail-over or a restart without its data
  uint64_t offset = 0;  // the bytes of the replication stream before it

  bool operator==(const ReplicationPoint& other) const { return id == other.id && offset == other.offset; }
};

inline bool IsReplicationId(Bytes text) {
  return text.size() == 40 && text.find_first_not_of("0123456789abcdefABCDEF") == Bytes::npos;
}

}  // namespace prm::redis
