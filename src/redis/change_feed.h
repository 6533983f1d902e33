// The names of keys that change, as a server tells them where replication is forbidden: by CLIENT TRACKING in
// broadcast mode (Redis 6.0) or by keyspace notifications. Neither tells values, nor what has changed while
// nobody listened. Facts: redis 7.0 src/tracking.c, src/notify.c, src/pubsub.c.
//
// RESP2: one connection is subscribed to what the other one has ordered. Redis bounds what waits for a
// subscriber by client-output-buffer-limit pubsub, and closes the connection beyond that.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/status.h"
#include "redis/connection.h"
#include "redis/data_watch.h"

namespace prm::redis {

class ChangeFeed {
 public:
  enum class Kind { kTracking, kNotifications };

  struct Change {
    std::optional<int> db;  // nothing: tracking does not tell it
    std::string key;
  };

  // Opens the feed: every change after Open is told, or Read or Check fails. The connections, which must lead
  // to the same server and outlive the feed, are used for nothing else. may_track: names without their
  // databases will do; tracking is preferred then, as it needs no setting of the server, tells of FLUSHALL
  // and names a key once however often it changes at a time. Errors: kUnavailable (a replica, loading, or two
  // servers), kUnsupported (a node of a cluster, or neither feed is to be had; the detail says why),
  // kPermissionDenied (INFO), those of Connection.
  static Result<std::unique_ptr<ChangeFeed>> Open(Connection& subscriber, Connection& commands,
                                                  bool may_track);

  Kind kind() const { return kind_; }

  // The id of the server process: 40 hex digits.
  const std::string& run_id() const { return data_.run_id(); }

  // Why changes may be missing though nothing has failed, as a clause; empty: they may not.
  const std::string& doubt() const { return doubt_; }

  // Waits at most wait_ms and appends what has been told since. Memory: a message is at most 64 MB. Errors:
  // kUnavailable (FLUSHALL or FLUSHDB), kTooLarge (a message), kProtocol, kTimeout (nothing came, not even
  // the answer to Ping), those of Connection. The feed is unusable then.
  Status Read(long wait_ms, std::vector<Change>& changes);

  // Asks the server for an answer behind what it has told so far; Read sends the question and counts the
  // answer. The server tells changes by tracking when it has executed all commands that had arrived: what
  // changed before a question is told before the answer to a second one, asked after the first was answered.
  void Ping();
  uint64_t pongs() const { return pongs_; }
  // Questions that the server did not answer, because a script keeps it busy.
  uint64_t refusals() const { return refusals_; }

  // Where the server does not show which commands were called: asks how many keys it has, before the first of
  // two questions, so that Check sees whether more have gone than names were told. False: a script keeps it
  // busy. Errors: those of Connection.
  Result<bool> CountKeys();

  // Asks whether the server is still the same, with the same data, so that what was told is all that changed.
  // False: a script keeps it busy. Errors: those of DataWatch::Check, kUnavailable (it no longer sends
  // notifications, or keys have gone without being told).
  Result<bool> Check();

  // Whether Read or Check has failed because of FLUSHALL, FLUSHDB or SWAPDB.
  bool is_flushed() const { return is_emptied_ || data_.is_flushed(); }

 private:
  struct Count {
    uint64_t told;                 // names, before the keys were counted
    std::map<int, uint64_t> keys;  // of each database
  };

  ChangeFeed(Connection& subscriber, Connection& commands, DataWatch data)
      : subscriber_(subscriber), commands_(commands), data_(std::move(data)) {}

  Result<bool> Track();
  Status Notify(bool may_track);
  Status ReadFlags();
  std::string MissingFlags() const;
  Status Take(const Reply& message, std::vector<Change>& changes);
  Status TakeInvalidation(const ReplyView& keys, std::vector<Change>& changes);
  Status TakeNotification(Bytes channel, Bytes payload, std::vector<Change>& changes);
  Status JudgeCount();

  Connection& subscriber_;
  Connection& commands_;
  DataWatch data_;
  Kind kind_ = Kind::kTracking;
  std::string doubt_;
  std::string no_tracking_;           // why, as a sentence
  std::optional<std::string> flags_;  // notify-keyspace-events; nothing: it cannot be asked for
  uint64_t pongs_ = 0;
  uint64_t refusals_ = 0;
  uint64_t told_ = 0;  // names
  std::optional<Count> judged_, counted_;
  bool is_emptied_ = false;  // Read was told
};

}  // namespace prm::redis
