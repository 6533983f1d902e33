// Whether a server still has the data that it had: it is the same process, and no command has replaced all of
// them since. Only INFO tells that: keyspace notifications, for example, are silent about FLUSHALL.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "core/status.h"
#include "redis/connection.h"

namespace prm::redis {

class DataWatch {
 public:
  // Notes what the server has now. Errors: kUnavailable (a replica, or loading), kUnsupported (INFO has no
  // run_id), kPermissionDenied (INFO), those of Connection.
  static Result<DataWatch> Begin(Connection& connection);

  // The id of the server process: 40 hex digits.
  const std::string& run_id() const { return state_.run_id; }

  // Whether INFO shows what commands were called. Otherwise Check does not see that data were replaced.
  bool sees_commands() const { return state_.infos > 0; }

  // Whether the data are those that Begin has noted. False: a script keeps the server busy, so ask again.
  // Errors: kUnavailable (they are not, or nothing tells it any more), those of Connection.
  Result<bool> Check(Connection& connection);

  // Check in two halves: appends its questions to the pipeline, and judges the answers, which are the next.
  static void Ask(Connection& connection);
  Result<bool> TakeAnswer(Connection& connection);

  // Whether Check has failed because of FLUSHALL, FLUSHDB or SWAPDB.
  bool is_flushed() const { return is_flushed_; }

 private:
  struct State {
    std::string run_id;
    std::string flushed;   // how often commands were called that empty or exchange databases
    std::string replaced;  // how often those were called that replace all data
    int64_t infos = 0;     // how often INFO was called: grows by each Check
  };

  explicit DataWatch(State state) : state_(std::move(state)) {}

  static Result<State> TakeState(Connection& connection);

  State state_;
  bool is_flushed_ = false;
};

// Whether the server refused something because a script has been running for long.
bool IsBusy(const Error& error);

// An error of a server that is not, or no more, what it has to be.
Error NotAvailable(const Connection& connection, const std::string& predicate);

}  // namespace prm::redis
