#include "pg/table_locks.h"

#include "pg/background.h"
#include "pg/session_lock.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm::pg {

namespace {

constexpr int64 kPatienceMs = 10 * 1000;
constexpr int64 kMomentMs = 5;

// These, and each of their partitions and children that the caller may lock.
std::vector<TableLock> EachAlone(const std::vector<TableLock> &locks) {
  LocalSettings path;
  path.Set("search_path", "pg_catalog, pg_temp");
  std::vector<TableLock> all = locks;
  for (const TableLock &lock : locks) {
    // pg_partition_tree would lock them.
    auto const rows = Spi::Execute(
        R"sql(WITH RECURSIVE tree (relation) AS (
                  SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1)
                  UNION
                  SELECT i.inhrelid FROM pg_inherits AS i JOIN tree AS t ON i.inhparent = t.relation)
              SELECT format('%I.%I', n.nspname, c.relname)
              FROM tree AS t
              JOIN pg_class AS c ON c.oid = t.relation AND c.relkind IN ('r', 'p')
              JOIN pg_namespace AS n ON n.oid = c.relnamespace
              WHERE has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') AND has_schema_privilege(n.oid, 'USAGE')
              ORDER BY c.oid)sql",
        {SqlParam::Text(lock.table)});
    for (uint64 i = 0; i < rows.size(); ++i) all.push_back({rows[i].Text(0), lock.mode});
  }
  return all;
}

std::string LockStatement(const TableLock &lock, const char *only) {
  return "LOCK TABLE " + (only + lock.table) + " IN " + lock.mode + " MODE";
}

bool IsGoneOrOthers(int sqlstate) {
  return sqlstate == ERRCODE_UNDEFINED_TABLE || sqlstate == ERRCODE_INVALID_SCHEMA_NAME ||
         sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE || sqlstate == ERRCODE_WRONG_OBJECT_TYPE;
}

}  // namespace

int64 EndOfPatience() { return MonotonicMs() + (LockTimeout > 0 ? LockTimeout : kPatienceMs); }

bool LockInTransactionWithin(const LOCKTAG &tag, LOCKMODE mode, int64 wait_ms) {
  if (TryLockInTransaction(tag, mode)) return true;
  try {
    InSubtransaction([&] { LockWithin(wait_ms, [&] { LockInTransaction(tag, mode); }); });
  } catch (const PgError &error) {
    if (error.sqlstate() != ERRCODE_LOCK_NOT_AVAILABLE) throw;
    return false;
  }
  return true;
}

void LockTables(const std::vector<TableLock> &locks, int64 until_ms) {
  if (locks.empty()) return;
  for (std::string missed;;) {
    std::vector<TableLock> all = EachAlone(locks);
    std::stable_partition(all.begin(), all.end(),
                          [&](const TableLock &lock) { return lock.table == missed; });
    missed.clear();
    try {
      InSubtransaction([&] {
        int64 const begun_ms = MonotonicMs();
        int64 end_ms = until_ms;
        for (const TableLock &lock : all) {
          missed = lock.table;
          LockWithin(end_ms - MonotonicMs(), [&] { Spi::Execute(LockStatement(lock, "ONLY ")); });
          // Who waits for these, since this call has, does not look for a deadlock before that, or hardly.
          if (&lock == &all.front())
            end_ms = std::max(std::min(until_ms, begun_ms + DeadlockTimeout / 2), MonotonicMs() + kMomentMs);
        }
        // Partitions that have come meanwhile, and those of others.
        for (const TableLock &lock : locks) {
          missed = lock.table;
          LockWithin(end_ms - MonotonicMs(), [&] { Spi::Execute(LockStatement(lock, "")); });
        }
      });
      return;
    } catch (const PgError &error) {
      // A partition may have been dropped, or detached and given to others, since it was found.
      bool const is_gone = IsGoneOrOthers(error.sqlstate()) &&
                           std::none_of(locks.begin(), locks.end(),
                                        [&](const TableLock &lock) { return lock.table == missed; });
      if (error.sqlstate() != ERRCODE_LOCK_NOT_AVAILABLE &&
          error.sqlstate() != ERRCODE_T_R_DEADLOCK_DETECTED && !is_gone)
        throw;
    }
    if (MonotonicMs() >= until_ms)
      throw Failure(ERRCODE_LOCK_NOT_AVAILABLE, "table " + missed + " could not be locked in time",
                    "Transactions that write to it, or read it, have not ended.",
                    "Try again once they have. SELECT * FROM pg_locks WHERE relation = " +
                        QuoteLiteral(missed) + "::regclass shows who they are.");
  }
}

}  // namespace prm::pg
