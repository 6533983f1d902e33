// Commands about single keys, and errors that name them.
#pragma once

#include <cstdint>

#include "core/bytes.h"
#include "core/status.h"
#include "redis/connection.h"
#include "source/entry.h"

namespace prm::source {

// Whether the error says that a command is unknown or not permitted, or does not suit the key.
inline bool IsMissingCommand(const Error& error) {
  return error.code == ErrorCode::kPermissionDenied || error.code == ErrorCode::kServerError;
}

// The error with database and key in its detail.
Error ForKey(Error error, const Entry& entry);

// A bulk string that holds a decimal number.
bool ParseInteger(const redis::ReplyView& reply, int64_t& number);

// The time from a reply of TIME, in microseconds. Errors: that of an error reply, kProtocol.
Result<int64_t> ParseTimeUs(const redis::Connection& connection, const redis::ReplyView& reply);
// In milliseconds.
Result<int64_t> ParseTime(const redis::Connection& connection, const redis::ReplyView& reply);

// The limit of a page of SCAN. It also bounds a name, which is held in memory several times on its way to a
// row and cannot be read in pieces.
constexpr redis::ReplyLimit kNamesLimit = redis::kLargeReply;

// The error of SCAN, with a hint if the page exceeded the limit.
Error ForNames(Error error);

// An expiry as PEXPIRETIME returns it: absolute in milliseconds, or one of these.
constexpr int64_t kNoExpiry = -1;
constexpr int64_t kNoKey = -2;

// Asks when keys expire: by PEXPIRETIME, or by TIME and PTTL before Redis 7.0.
class ExpiryReader {
 public:
  ExpiryReader(redis::Connection& connection, bool has_pexpiretime)
      : connection_(connection), has_pexpiretime_(has_pexpiretime) {}

  // Appends the commands.
  void Ask(Bytes key);
  // Receives their answer. Errors: those of Connection, with the key.
  Result<int64_t> Receive(const Entry& entry);
  // Whether two answers are equal: expiries computed from two clock readings may differ a little.
  bool IsSame(int64_t before, int64_t after) const;

 private:
  redis::Connection& connection_;
  bool has_pexpiretime_;
};

}  // namespace prm::source
