// The visitor of a decoded value: one call per element, nothing is collected here.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/interrupts.h"

namespace prm::rdb {

enum class ValueType { kString, kList, kSet, kZset, kHash, kStream, kArray, kModule };

// The name that Redis' TYPE command prints: "string", "list", "set", "zset", "hash", "stream", "array";
// "module" for a value of a module, whose type has a name of its own.
const char* TypeName(ValueType type);

struct StreamId {
  uint64_t ms = 0;
  uint64_t seq = 0;
};

struct StreamInfo {
  uint64_t length = 0;
  StreamId last_id;
  StreamId first_id;
  StreamId max_deleted_id;
  uint64_t entries_added = 0;
};

struct StreamGroup {
  Bytes name;
  StreamId last_delivered_id;
  int64_t entries_read = -1;  // -1: Redis does not know
};

struct StreamConsumer {
  Bytes group;
  Bytes name;
  int64_t seen_time_ms = 0;  // Unix time
  uint64_t pending = 0;
};

struct StreamPending {
  Bytes group;
  Bytes consumer;
  bool has_consumer = true;  // false: it was returned (XNACK) and belongs to no consumer
  StreamId id;
  int64_t delivery_time_ms = 0;  // Unix time of the last delivery
  uint64_t delivery_count = 0;
};

using StreamFields = std::vector<std::pair<Bytes, Bytes>>;

// Receives a value element by element, in the order in which it is stored: lists from head to tail, sorted
// sets from the lowest score to the highest, streams by id. Bytes are valid only during the call.
class ValueVisitor : public Interrupts {
 public:
  virtual void OnString(Bytes) {}
  virtual void OnListElement(Bytes) {}
  virtual void OnSetMember(Bytes) {}
  virtual void OnHashField(Bytes /*field*/, Bytes /*value*/) {}
  // A field with an expiry of its own, which may be past: absolute, Unix time.
  virtual void OnExpiringHashField(Bytes field, Bytes value, int64_t /*expires_at_ms*/) {
    OnHashField(field, value);
  }
  virtual void OnZsetMember(Bytes /*member*/, double /*score*/) {}
  // An array is sparse: missing indexes have no element. By default it is passed on as a hash whose fields
  // are the indexes in decimal.
  virtual void OnArrayElement(uint64_t index, Bytes value) { OnHashField(std::to_string(index), value); }
  virtual void OnStreamEntry(StreamId, const StreamFields&) {}
  virtual void OnStreamInfo(const StreamInfo&) {}
  virtual void OnStreamGroup(const StreamGroup&) {}
  virtual void OnStreamConsumer(const StreamConsumer&) {}
  virtual void OnStreamPending(const StreamPending&) {}
  // A module's value: only the name of its type.
  virtual void OnModuleValue(Bytes /*type_name*/) {}
};

}  // namespace prm::rdb
