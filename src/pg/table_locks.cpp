#include "pg/table_locks.h"

#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "pg/wait.h"

namespace prm::pg {

namespace {

constexpr int64 kPatienceMs = 10 * 1000;
constexpr int64 kMomentMs = 5;

}  // namespace

int64 EndOfPatience() { return MonotonicMs() + (LockTimeout > 0 ? LockTimeout : kPatienceMs); }

void LockTables(std::vector<TableLock> locks, int64 until_ms) {
  while (!locks.empty()) {
    size_t next = 0;
    try {
      InSubtransaction([&] {
        int64 const begun_ms = MonotonicMs();
        int64 end_ms = until_ms;
        for (; next < locks.size(); ++next) {
          LocalSettings patience;
          patience.Set("lock_timeout", std::to_string(std::max(end_ms - MonotonicMs(), int64{1})));
          CancelAllowed const allowed;
          Spi::Execute("LOCK TABLE " + locks[next].table + " IN " + locks[next].mode + " MODE");
          CheckInterrupts();  // lock_timeout may have come with the lock
          // Who waits for these, since this call has, does not look for a deadlock before that, or hardly.
          if (next == 0)
            end_ms = std::max(std::min(until_ms, begun_ms + DeadlockTimeout / 2), MonotonicMs() + kMomentMs);
        }
      });
      return;
    } catch (const PgError &error) {
      if (error.sqlstate() != ERRCODE_LOCK_NOT_AVAILABLE && error.sqlstate() != ERRCODE_T_R_DEADLOCK_DETECTED)
        throw;
    }
    if (MonotonicMs() >= until_ms)
      throw Failure(ERRCODE_LOCK_NOT_AVAILABLE, "table " + locks[next].table + " could not be locked in time",
                    "Transactions that write to it, or read it, have not ended.",
                    "Try again once they have. SELECT * FROM pg_locks WHERE relation = " +
                        QuoteLiteral(locks[next].table) + "::regclass shows who they are.");
    std::rotate(locks.begin(), locks.begin() + static_cast<std::ptrdiff_t>(next),
                locks.begin() + static_cast<std::ptrdiff_t>(next) + 1);
  }
}

}  // namespace prm::pg
