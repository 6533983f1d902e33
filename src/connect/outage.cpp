#include "connect/outage.h"

#include <algorithm>

#include "pg/arguments.h"
#include "pg/memory.h"
#include "pg/settings.h"
#include "pg/wait.h"
#include "redis/error_words.h"

namespace prm {

namespace settings = pg::settings;

namespace {

constexpr long kLongestRetryMs = 3000;
// A shorter wait for Redis is not worth a warning.
constexpr long kQuietMs = 1000;

// Between half of the pause and all of it, so that many sessions do not come back at the same moment.
long WithJitter(long pause_ms) {
  return pause_ms -
         static_cast<long>(pg_prng_uint64_range(&pg_global_prng_state, 0, static_cast<uint64>(pause_ms / 2)));
}

}  // namespace

bool MayComeBack(ErrorCode code) {
  return code == ErrorCode::kConnectionFailure || code == ErrorCode::kTimeout ||
         code == ErrorCode::kUnavailable;
}

bool MayComeBack(int sqlstate) {
  return sqlstate == ERRCODE_CONNECTION_FAILURE || sqlstate == ERRCODE_CONNECTION_EXCEPTION ||
         sqlstate == ERRCODE_CANNOT_CONNECT_NOW;
}

bool IsRefusal(int sqlstate) {
  return sqlstate == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
         sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE || sqlstate == ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
}

std::string WithKind(const pg::Failure &failure) {
  std::string const kind(redis::KindOf(redis::CauseOf(failure.detail())));
  bool const is_kind = kind.size() > 1 && kind != "ERR" &&
                       std::all_of(kind.begin(), kind.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
  return is_kind ? failure.message() + ": " + kind : failure.message();
}

void ThrowAtFirst(const pg::Failure &failure, const std::string &server) {
  if (!MayComeBack(failure.sqlstate()) || !failure.hint().empty()) throw failure;
  throw pg::Failure(
      failure.sqlstate(), failure.message(), failure.detail(),
      "SELECT * FROM redis_migrate.preflight(" + pg::QuoteLiteral(server) + ") shows what Redis lacks.");
}

void Outage::Wait(const pg::Failure &failure, bool was_open) {
  TimestampTz const now = GetCurrentTimestamp();
  if (since_ == 0) since_ = now;
  if (TimestampDifferenceMilliseconds(since_, now) >= settings::reconnect_timeout_ms)
    throw pg::Failure(failure.sqlstate(), failure.message(), failure.detail(),
                      was_open && failure.sqlstate() == ERRCODE_CONNECTION_FAILURE
                          ? "Redis is reachable but keeps closing the connection. If its "
                            "client-output-buffer-limit or maxmemory-clients is the cause, lower "
                            "pg_redis_migrate.bytes_in_flight. " +
                                std::string(retry_)
                          : retry_);
  // After a timeout the run has already waited in silence.
  const bool was_waited_for = failure.sqlstate() == ERRCODE_CONNECTION_EXCEPTION;
  if (!told_ && (was_waited_for || TimestampDifferenceExceeds(since_, now, kQuietMs))) {
    told_ = true;
    pg::Report(
        WARNING, failure.message(), failure.detail(),
        "The " + std::string(what_) +
            " continues by itself if the problem is solved within pg_redis_migrate.reconnect_timeout, " +
            std::to_string((settings::reconnect_timeout_ms + 999) / 1000) + " s.");
  }
  pg::Sleep(WithJitter(pause_ms_));
  pause_ms_ = std::min(pause_ms_ * 2, kLongestRetryMs);
}

}  // namespace prm
