#include "worker/databases.h"

#include "pg/background.h"
#include "worker/area.h"
#include "worker/backoff.h"

namespace prm::worker {
namespace {

DatabaseEntry *EntryOf(Oid database) {
  for (DatabaseEntry &entry : area->databases)
    if (entry.database == database) return &entry;
  return nullptr;
}

pid_t PidOf(Kind kind, Oid database) {
  for (int i = 0; i < area->slot_count; ++i) {
    const Slot &slot = area->slots[i];
    if (slot.in_use && slot.kind == kind && slot.database == database) return slot.pid;
  }
  return 0;
}

// A prepared transaction commits without the callback; WakeIfPrepared replaces it.
void NotePrepared(Oid database) {
  LWLockAcquire(&area->lock, LW_EXCLUSIVE);
  if (DatabaseEntry *entry = EntryOf(database)) entry->prepares = true;
  LWLockRelease(&area->lock);
}

Oid woken_at_commit = InvalidOid;
Oid woken_at_end = InvalidOid;

// Must not raise errors.
void AtTransactionEnd(XactEvent event, void *) {
  if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_PREPARE && event != XACT_EVENT_ABORT) return;
  if (event == XACT_EVENT_PREPARE && OidIsValid(woken_at_commit)) NotePrepared(woken_at_commit);
  Oid const databases[] = {event == XACT_EVENT_COMMIT ? woken_at_commit : InvalidOid, woken_at_end};
  woken_at_commit = woken_at_end = InvalidOid;
  for (Oid database : databases) {
    if (!OidIsValid(database)) continue;
    LWLockAcquire(&area->lock, LW_EXCLUSIVE);
    WakeManagersLocked(database, true);
    LWLockRelease(&area->lock);
  }
}

void WatchTransactions() {
  static bool registered = false;
  RequireSlots();
  if (registered) return;
  pg::Call([] { RegisterXactCallback(AtTransactionEnd, nullptr); });
  registered = true;
}

// Whether this process looks for work by itself after its command.
bool LooksAgain() {
  if (!IsWorker()) return false;
  Kind const kind = MySlot().kind;
  return kind != Kind::kMigration;
}

}  // namespace

void WakeManagersLocked(Oid database, bool again) {
  DatabaseEntry *entry = EntryOf(database);
  if (entry != nullptr && again) {
    entry->wanted = true;
    ++entry->changes;
    // Fast path: each commit of a busy application may come here.
    if (std::exchange(entry->is_told, true)) return;
  }
  pid_t pid = PidOf(Kind::kScheduler, database);
  if (pid == 0 || pid == MyProcPid) {
    if (again && entry == nullptr) return;  // the database is not in pg_redis_migrate.databases
    pid = PidOf(Kind::kLauncher, InvalidOid);
  }
  if (pid != 0 && pid != MyProcPid) kill(pid, SIGUSR1);
}

void WakeAtCommit() {
  if (!IsPreloaded() || LooksAgain()) return;
  WatchTransactions();
  woken_at_commit = MyDatabaseId;
}

void WakeNow() {
  LWLockAcquire(&area->lock, LW_EXCLUSIVE);
  WakeManagersLocked(MyDatabaseId, true);
  LWLockRelease(&area->lock);
}

void WakeIfPrepared() {
  LWLockAcquire(&area->lock, LW_EXCLUSIVE);
  const DatabaseEntry *entry = EntryOf(MyDatabaseId);
  if (entry != nullptr && entry->prepares) WakeManagersLocked(MyDatabaseId, true);
  LWLockRelease(&area->lock);
}

void WakeLauncher() {
  LWLockAcquire(&area->lock, LW_SHARED);
  // Under the lock the process cannot have released its slot, so the pid is its own.
  if (pid_t const pid = PidOf(Kind::kLauncher, InvalidOid); pid != 0) kill(pid, SIGUSR1);
  LWLockRelease(&area->lock);
}

void WakeAtEnd(Oid database) {
  WatchTransactions();
  woken_at_end = database;
}

int ListDatabases(const std::vector<Oid> &listed) {
  int left_out = 0;
  Locked lock(LW_EXCLUSIVE);
  for (DatabaseEntry &entry : area->databases)
    if (OidIsValid(entry.database) && std::find(listed.begin(), listed.end(), entry.database) == listed.end())
      memset(&entry, 0, sizeof entry);
  for (Oid database : listed) {
    if (EntryOf(database) != nullptr) continue;
    if (DatabaseEntry *entry = EntryOf(InvalidOid)) {
      entry->database = database;
      entry->wanted = true;
    } else {
      ++left_out;
    }
  }
  return left_out;
}

std::vector<Oid> DatabasesInNeed(int64 *sleep_ms) {
  std::vector<Oid> needy;
  needy.reserve(kMaxDatabases);
  Locked lock(LW_EXCLUSIVE);
  // Behind the lock, as no entry is parked later then.
  TimestampTz const now = GetCurrentTimestamp();
  int64 const now_ms = pg::MonotonicMs();
  for (DatabaseEntry &entry : area->databases) {
    if (!OidIsValid(entry.database) || PidOf(Kind::kScheduler, entry.database) != 0) continue;
    int64 wait = 0;
    if (!entry.wanted) {
      if (!entry.has_due) continue;
      // After the clock was set back the scheduler looks again when something is due.
      if (now >= entry.parked_at) wait = std::max<int64>(TimestampDifferenceMilliseconds(now, entry.due), 0);
    }
    wait = std::max(wait, entry.not_before_ms - now_ms);
    if (wait > 0) {
      *sleep_ms = std::min(*sleep_ms, wait);
      continue;
    }
    needy.push_back(entry.database);
    entry.is_told = false;
    entry.wanted = true;
    entry.not_before_ms = now_ms + BackoffMs(++entry.failures);
  }
  return needy;
}

bool IsListed(Oid database) {
  if (!IsPreloaded()) return false;
  Locked lock(LW_SHARED);
  return EntryOf(database) != nullptr;
}

uint32 Changes(Oid database) {
  Locked lock(LW_EXCLUSIVE);
  DatabaseEntry *entry = EntryOf(database);
  if (entry == nullptr) return 0;
  entry->is_told = false;
  return entry->changes;
}

void LookedAt(Oid database) {
  Locked lock(LW_EXCLUSIVE);
  if (DatabaseEntry *entry = EntryOf(database)) {
    entry->failures = 0;
    entry->not_before_ms = 0;
  }
}

bool Park(Oid database, uint32 changes, std::optional<TimestampTz> due) {
  Locked lock(LW_EXCLUSIVE);
  DatabaseEntry *entry = EntryOf(database);
  if (entry == nullptr) return true;
  if (entry->changes != changes) return false;
  entry->wanted = false;
  entry->has_due = due.has_value();
  entry->due = due.value_or(0);
  entry->parked_at = GetCurrentTimestamp();
  return true;
}

}  // namespace prm::worker
