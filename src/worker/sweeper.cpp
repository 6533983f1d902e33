// Workers that call a procedure of the extension again and again: the sweeper, for the policies of its owner,
// and the attempt writer.
#include "worker/backoff.h"
#include "worker/worker_main.h"

namespace prm::worker {
namespace {

// A job due later than this is left to the scheduler, which then starts another sweeper.
constexpr int64 kLingerMs = 60 * 1000;
constexpr int64 kLeastPauseMs = 1000;

// Calls `command` and sleeps for the time that `next` returns, until that is nullopt, the routine that
// `command` needs is gone, or the worker is asked to end.
void CallAgainAndAgain(const char *routine, const char *command, std::optional<int64> (*next)()) {
  Extension extension;
  uint32 failures = 0;
  if (!extension.exists()) return;
  while (MyRequest() == Request::kNone) {
    CountWakeup();
    bool exists = false;
    std::optional<int64> pause;
    std::optional<Problem> problem = Try([&] {
      pg::InTransaction([&] { exists = !extension.HasChanged() && HasRoutine(routine); });
      if (!exists) return;
      SetState(State::kRunning);
      CountRun();
      pg::RunCommand(command);
      pg::InTransaction([&] { pause = next(); });
    });
    bool const went_away = problem && extension.WentAway();
    // Checked last: a request also ends the look at the extension.
    if (went_away || MyRequest() != Request::kNone) return;
    if (problem) {
      SetError(problem->SqlState().c_str(), problem->message);
      pause = BackoffMs(++failures);
      Log(WARNING, *problem,
          std::string(command) + " is tried again in " + std::to_string(*pause / 1000) + " s");
      SetState(State::kRetrying);
    } else {
      if (!exists || !pause) return;
      failures = 0;
      SetError("", "");
      SetState(State::kSleeping);
    }
    Try([&] { pg::WaitForLatch(*pause); });
  }
}

}  // namespace

void RunSweeper(const Slot &) {
  CallAgainAndAgain(
      "redis_migrate.maintain()", "CALL redis_migrate.maintain()", []() -> std::optional<int64> {
        auto rows = pg::Spi::Execute("SELECT redis_migrate.next_maintenance()");
        if (rows[0].IsNull(0)) return std::nullopt;
        int64 const wait_ms =
            TimestampDifferenceMilliseconds(GetCurrentTimestamp(), DatumGetTimestampTz(rows[0].Value(0)));
        if (wait_ms > kLingerMs) return std::nullopt;
        return std::max(wait_ms, kLeastPauseMs);
      });
}

void RunAttemptWriter(const Slot &) {
  // The queue sets the writer's latch when an attempt has its result. After a minute without attempts the
  // writer ends; the next attempt starts another, through pg/work_signal.h.
  CallAgainAndAgain("redis_migrate.write_login_attempts()", "CALL redis_migrate.write_login_attempts()",
                    []() -> std::optional<int64> {
                      static int64 last_attempt_ms = pg::MonotonicMs();
                      int64 const now_ms = pg::MonotonicMs();
                      auto rows = pg::Spi::Execute("SELECT redis_migrate.attempts_due()");
                      if (!rows[0].IsNull(0)) {
                        last_attempt_ms = now_ms;
                        int64 const wait_ms = TimestampDifferenceMilliseconds(
                            GetCurrentTimestamp(), DatumGetTimestampTz(rows[0].Value(0)));
                        return std::clamp(wait_ms, kLeastPauseMs, kLingerMs);
                      }
                      if (now_ms - last_attempt_ms >= kLingerMs) return std::nullopt;
                      return kLingerMs - (now_ms - last_attempt_ms);
                    });
}

}  // namespace prm::worker
