// Encodes values that were read by other commands than DUMP as DUMP payloads, which DecodeDump reads and
// RESTORE takes. Values are uncompressed, in the plain encoding of the type and with the oldest RDB version
// that has it, so that every Redis that has the type can restore them. Format: redis 7.0 src/rdb.c,
// rdbSaveLen and rdbSaveObject; src/listpack.c; src/t_stream.c, streamAppendItem.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/byte_spool.h"
#include "core/bytes.h"
#include "rdb/byte_reader.h"
#include "rdb/large_payload.h"
#include "rdb/value.h"

namespace prm::rdb {

// The payload of a string.
std::string EncodeStringDump(Bytes value);

// Collects the elements of a list, set, hash or sorted set.
class CollectionEncoder {
 public:
  // make_spool: where a large payload is collected; none: in memory.
  explicit CollectionEncoder(ValueType type, MakeSpool make_spool = {});

  void AddListElement(Bytes value) { Add(value); }  // from head to tail
  void AddSetMember(Bytes member) { Add(member); }
  void AddHashField(Bytes field, Bytes value);
  void AddExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms);  // absolute, after 1970
  void AddZsetMember(Bytes member, double score);  // from the highest score to the lowest, as in RDB

  uint64_t count() const { return count_; }
  // Bytes so far.
  size_t size() const {
    return head_.size() + payload_.size() + (spool_ ? spool_->size() : 0) +
           expiries_.size() * sizeof(int64_t);
  }

  // Moves much that has been collected to a spool, if there is a place for it: to be called after every few
  // elements. Errors: those of the spool.
  Status Spill();

  // Makes room for `count` elements like those so far, but not for more than `most` bytes: a large payload
  // that grows by doubling is held twice whenever it moves. Does nothing if it goes to a spool.
  void ExpectCount(uint64_t count, uint64_t most);

  // Ends the value and returns its payload. Elements must be distinct if the type requires it. valkey:
  // whether a hash with field expiries is encoded for Valkey or for Redis, which cannot read each other's
  // encoding.
  std::string Finish(bool valkey = false);

  // As Finish: the payload becomes `payload`, or `large` if it has gone to a spool; the other becomes empty.
  // Errors: those of the spool.
  Status Finish(bool valkey, std::string& payload, std::shared_ptr<LargePayload>& large);

 private:
  static constexpr int64_t kNever = -1;

  void Add(Bytes element);
  std::string HeadOfExpiring(bool valkey) const;
  Status AppendExpiring(ByteReader& pairs, int64_t expiry, bool valkey, std::string& to) const;
  std::string FinishExpiring(bool valkey);
  Status SpoolExpiring(bool valkey);

  ValueType type_;
  uint64_t count_ = 0;
  std::string payload_;  // once there is a spool, what follows it
  MakeSpool make_spool_;
  std::string head_;  // what the payload begins with, once there is a spool
  std::shared_ptr<ByteSpool> spool_;
  std::vector<int64_t> expiries_;  // of the fields; empty while no field has one
  int64_t earliest_ = INT64_MAX;
};

// A consumer group, from the replies of Redis' commands.
struct StreamGroupState {
  struct Pending {
    StreamId id;
    std::string consumer;
    int64_t delivery_time_ms = 0;
    uint64_t delivery_count = 0;
  };
  struct Consumer {
    std::string name;
    int64_t seen_time_ms = 0;
  };
  std::string name;
  StreamId last_delivered_id;
  int64_t entries_read = -1;
  std::vector<Consumer> consumers;
  std::vector<Pending> pending;  // in ascending order of id; each for one of the consumers
};

// Collects a stream.
class StreamEncoder {
 public:
  void AddEntry(StreamId id, const StreamFields& fields);  // in ascending order of id

  uint64_t count() const { return count_; }
  size_t size() const { return entries_.size() + listpack_.size(); }

  // Ends the value and returns its payload. has_counters: the source is of Redis 7.0 or later, which has
  // first_id, max_deleted_id and entries_added in `info` and entries_read in the groups.
  std::string Finish(const StreamInfo& info, const std::vector<StreamGroupState>& groups, bool has_counters);

 private:
  void EndListpack();
  void AddInteger(int64_t value);
  void AddString(Bytes value);
  void AddBackLength(size_t length);

  uint64_t count_ = 0;
  uint64_t listpack_count_ = 0;
  std::string entries_;   // complete listpacks, each after its master id
  std::string listpack_;  // elements of the current one, after the master entry
  uint64_t elements_ = 0;
  int64_t listpack_entries_ = 0;
  StreamId master_id_;
  std::vector<std::string> master_fields_;
};

}  // namespace prm::rdb
