// Reads keys by name, each with the point of the replication stream that its value belongs to.
//
// Values, expiries and INFO replication are asked for in one MULTI: what it answers is of one moment. Each is
// short, and two are under way, over a slow network as many more as keep the server at work, so that other
// clients need not wait for more. Only keys that are to be read together may make one longer. Values that are
// too large for a MULTI are read in pieces, between two points.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/byte_spool.h"
#include "redis/connection.h"
#include "redis/data_watch.h"
#include "redis/replication_point.h"
#include "source/busy_meter.h"
#include "source/entry.h"
#include "source/key_reply.h"
#include "source/server_abilities.h"
#include "source/value_reader.h"

namespace prm::source {

struct NamedKeysOptions {
  bool is_cluster = false;                       // whose nodes execute no MULTI on keys of several slots
  size_t keys_at_once = 200;                     // in one MULTI; fewer, if the budget says so
  uint64_t bytes_at_once = uint64_t{1} << 20;    // of their values, by MEMORY USAGE, unless a single one does
  uint64_t bytes_under_way = uint64_t{4} << 20;  // likewise, of all MULTIs whose answers have not come
  uint64_t bytes_in_all = UINT64_MAX;            // likewise, of a call of Read, unless a single value does
  uint64_t max_reply_bytes = uint64_t{16} << 20;   // larger values are read in pieces
  uint64_t max_value_bytes = uint64_t{512} << 20;  // larger values are kTooLarge
  RereadBudget* budget = nullptr;  // is told what reading costs the server; it must outlive the object
  MakeSpool make_spool = {};       // for large collections; none: they are held in memory
  bool has_points = true;          // false: points have the run_id of the server and offset 0
};

// A key to read: entry.db and entry.key are given, the rest is filled.
struct NamedKey {
  // Becomes kRead with its expiry, kVanished, kTooLarge, kChanging or kUnsupported. Fields of hashes that
  // have expired are not left out: the server has yet to delete them.
  Entry entry;
  // Keys with the same number other than 0 are read at one moment, as far as one MULTI has room for them.
  uint64_t together = 0;
  // It was not read: that would have been more than bytes_in_all or, where the sizes of values may not be
  // asked for, more than keys_at_once keys.
  bool is_left = false;
  // The server was a replica: what is kVanished may be a key that has expired by its clock, of which the
  // master is yet to say that it is gone, or that it expires later.
  bool is_of_replica = false;
  // The value holds all that the stream did up to `since`, and nothing that it does after `until`. Equal,
  // unless the value was read in pieces. Both have the replication id that the server had.
  redis::ReplicationPoint since;
  redis::ReplicationPoint until;
};

class NamedKeys {
 public:
  // Finds out what the server can do. The connection, which must not be that of a replication link, must
  // outlive the object, and keep its database meanwhile: others may ask the server by it, between two calls.
  // Errors: kUnsupported (INFO tells no replication id: Redis before 4.0, or not Redis), kPermissionDenied
  // (no right to INFO, MULTI or EXEC), those of Connection.
  static Result<std::unique_ptr<NamedKeys>> Open(redis::Connection& connection,
                                                 const NamedKeysOptions& options);

  // Reads the keys, of any databases. Where nothing forbids MULTI every key costs one command for its size,
  // and two or three for its value. After an error or an exception the object is unusable. Errors: those of
  // Connection; an error reply for a single key carries the key in its detail.
  Status Read(std::vector<NamedKey>& keys);

  // Of the server, as of Open.
  const std::string& run_id() const { return run_id_; }

  // Where the server's history is now, by INFO replication. Errors: those of Connection::Command, kProtocol.
  Result<redis::ReplicationPoint> FetchPoint();

  // DataWatch::Check by the same connection; the budget is told what it costs. Errors: also those of TIME.
  Result<bool> Check(redis::DataWatch& data);

 private:
  using Group = std::vector<NamedKey*>;

  // Keys that one MULTI asks for.
  struct Question {
    Group keys;
    uint64_t bytes = 0;
  };

  // From INFO replication.
  struct Moment {
    redis::ReplicationPoint point;
    bool is_replica;
  };

  NamedKeys(redis::Connection& connection, const NamedKeysOptions& options, const ServerAbilities& server);

  std::optional<Moment> MomentIn(Bytes info) const;
  Result<Moment> FetchMoment();
  size_t SlotOf(const NamedKey& key) const;
  Status Select(int db);
  Status ReadInDatabase(const Group& keys);
  bool IsFull(const Question& question, const Group& keys, const std::vector<uint64_t>& sizes,
              size_t next) const;
  bool Admit(uint64_t size);
  Status AskSizes(const Group& keys, std::vector<uint64_t>& sizes);
  void AskAtOnce(const Group& keys);
  Status ReceiveAtOnce(const Group& keys, Group& again, Group& in_pieces);
  Status TakeAnswers(const redis::Reply& answers, const Group& keys, Group& in_pieces);
  Status ReadInPieces(const Group& keys);

  redis::Connection& connection_;
  NamedKeysOptions options_;
  ServerAbilities server_;
  ValueReader values_;
  BusyMeter meter_;
  std::string run_id_;  // of the server
  bool has_dump_ = true;
  bool has_memory_usage_ = true;
  std::optional<int> selected_;
  size_t admitted_ = 0;  // values of the call of Read
  uint64_t admitted_bytes_ = 0;
  bool no_memory_ = false;  // the server has said so in the call of Read
};

}  // namespace prm::source
