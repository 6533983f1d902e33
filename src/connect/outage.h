// Waiting while a source cannot be reached.
#pragma once

#include "pg/error.h"
#include "pg/pg.h"

namespace prm {

// Whether an error of a connection may pass by itself. The source is then opened again.
bool MayComeBack(ErrorCode code);
bool MayComeBack(int sqlstate);

// Whether the other side refuses something as it is set up now: a login, a right, a command. That passes once
// somebody has changed it, so a live run, which nobody watches, tries again and again.
bool IsRefusal(int sqlstate);

// The message of a failure, with the kind of error that Redis has named, such as NOPERM or OOM. Its other
// words, which may name keys, are not for everyone who sees the state of a run.
std::string WithKind(const pg::Failure &failure);

// Throws an error of the first attempt to reach a server, with a hint where to look.
[[noreturn]] void ThrowAtFirst(const pg::Failure &failure, const std::string &server);

// Reports that the source cannot be reached, and gives up after pg_redis_migrate.reconnect_timeout.
class Outage {
 public:
  // what: waits, "run"; retry: the hint when it has given up.
  explicit Outage(
      const char *what = "run",
      const char *retry = "The run keeps its position: CALL redis_migrate.run again when Redis is back.")
      : what_(what), retry_(retry) {}

  // Waits a moment before the next try. was_open: it was reached, and then the connection failed. Throws the
  // failure when the time is over.
  void Wait(const pg::Failure &failure, bool was_open);

 private:
  static constexpr long kFirstRetryMs = 200;

  const char *what_;
  const char *retry_;
  TimestampTz since_ = 0;
  long pause_ms_ = kFirstRetryMs;
  bool told_ = false;
};

}  // namespace prm
