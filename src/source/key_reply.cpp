#include "source/key_reply.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "core/printable.h"

namespace prm::source {

namespace {

// Before Redis 7.0 an expiry is computed from two clock readings; a difference up to this is no change.
constexpr int64_t kExpiryToleranceMs = 1000;

Result<redis::Reply> ReceiveFor(redis::Connection& connection, const Entry& entry) {
  Result<redis::Reply> reply = connection.Receive();
  if (reply.ok() && reply.value().IsError()) return ForKey(connection.ToError(reply.value()), entry);
  return reply;
}

}  // namespace

Error ForKey(Error error, const Entry& entry) {
  error.detail += (error.detail.empty() ? "" : " ") + ("Database " + std::to_string(entry.db) + ", key \"") +
                  Printable(entry.key) + "\".";
  return error;
}

Error ForNames(Error error) {
  if (error.code == ErrorCode::kTooLarge && error.hint.empty()) {
    error.hint =
        "If key names are that long, lower pg_redis_migrate.batch_rows. Rename or delete a key whose name "
        "alone is longer.";
  }
  return error;
}

bool ParseInteger(const redis::ReplyView& reply, int64_t& number) {
  const Bytes text = reply.String().value_or("");
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

Result<int64_t> ParseTimeUs(const redis::Connection& connection, const redis::ReplyView& reply) {
  if (reply.IsError()) return connection.ToError(reply.ErrorText(), "TIME");
  int64_t seconds = 0;
  int64_t microseconds = 0;
  if (reply.size() != 2 || !ParseInteger(reply.element(0), seconds) ||
      !ParseInteger(reply.element(1), microseconds) || seconds < 0 ||
      seconds >= std::numeric_limits<int64_t>::max() / 1000000 || microseconds < 0 ||
      microseconds >= 1000000) {
    return connection.UnknownReply("TIME");
  }
  return seconds * 1000000 + microseconds;
}

Result<int64_t> ParseTime(const redis::Connection& connection, const redis::ReplyView& reply) {
  const auto time = ParseTimeUs(connection, reply);
  if (!time.ok()) return time.error();
  return time.value() / 1000;
}

void ExpiryReader::Ask(Bytes key) {
  if (has_pexpiretime_) {
    connection_.Append({"PEXPIRETIME", key});
  } else {
    connection_.Append({"TIME"});
    connection_.Append({"PTTL", key});
  }
}

Result<int64_t> ExpiryReader::Receive(const Entry& entry) {
  int64_t now_ms = 0;
  if (!has_pexpiretime_) {
    const Result<redis::Reply> time = ReceiveFor(connection_, entry);
    if (!time.ok()) return time.error();
    const Result<int64_t> parsed = ParseTime(connection_, time.value());
    if (!parsed.ok()) return parsed.error();
    now_ms = parsed.value();
  }
  const Result<redis::Reply> expiry = ReceiveFor(connection_, entry);
  if (!expiry.ok()) return expiry.error();
  const auto value = expiry.value().Integer();
  if (!value || *value < kNoKey) return connection_.UnknownReply(has_pexpiretime_ ? "PEXPIRETIME" : "PTTL");
  // Redis accepts expiries over the full range of 64 bits.
  return *value < 0 ? *value : now_ms + std::min(*value, std::numeric_limits<int64_t>::max() - now_ms);
}

bool ExpiryReader::IsSame(int64_t before, int64_t after) const {
  if (before == after) return true;
  return !has_pexpiretime_ && before >= 0 && after >= 0 &&
         std::max(before, after) - std::min(before, after) <= kExpiryToleranceMs;
}

}  // namespace prm::source
