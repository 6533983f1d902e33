#include "lockout/attempt_queue.h"

#include "pg/settings.h"
#include "pg/state_file.h"
#include "pg/work_signal.h"

namespace prm::lockout {
namespace {

using pg::StateFileReader;
using pg::StateFileWriter;

constexpr char kFile[] = "pg_stat/pg_redis_migrate.attempts";
constexpr uint64 kFileKind = (UINT64CONST(0x41545434) << 32) | sizeof(Attempt);  // "ATT4"
constexpr int kWriters = 64;

using Slot = LockoutTable::Table::Owner;

// Searches read only these, not the attempts.
struct Place {
  Oid database;  // 0: free
  int64 id;
  TimestampTz result_by;
  TimestampTz waits_from;
  Slot slot;

  // Whether the clock was set back after the wait for the result began.
  bool IsAhead(TimestampTz now) const { return result_by > now && waits_from > now; }
  bool IsReady(TimestampTz now) const { return database == MyDatabaseId && result_by <= now; }
};

struct Header {
  int64 last_id;
  int32 capacity;
  int32 waiting;
  int32 search_from;       // where the search for a free place begins
  volatile bool changing;  // a process changes the queue, or was killed while it did
  uint64 dropped;
  uint32 waiting_of[LockoutTable::kSlots];
  struct {
    Oid database;
    int pid;
  } writers[kWriters];
  Place places[FLEXIBLE_ARRAY_MEMBER];
};

size_t AttemptsOffset(int capacity) {
  return MAXALIGN(offsetof(Header, places) + sizeof(Place) * static_cast<size_t>(capacity));
}

size_t AreaSize() {
  int capacity = pg::settings::attempt_queue_size;
  return AttemptsOffset(capacity) + sizeof(Attempt) * static_cast<size_t>(capacity);
}

Header *header() { return static_cast<Header *>(attempt_area.memory()); }

Attempt *attempts(Header *queue) {
  return reinterpret_cast<Attempt *>(reinterpret_cast<char *>(queue) + AttemptsOffset(queue->capacity));
}

void Free(Header *queue, int place) {
  queue->places[place].database = InvalidOid;
  queue->waiting_of[queue->places[place].slot]--;
  queue->waiting--;
}

bool PutInto(Header *queue, Attempt *attempt) {
  if (queue->waiting == queue->capacity) return false;
  int place = queue->search_from;
  while (queue->places[place].database != InvalidOid) place = (place + 1) % queue->capacity;
  queue->search_from = (place + 1) % queue->capacity;
  attempt->slot = std::min<Slot>(attempt->slot, LockoutTable::kSlots - 1);
  queue->places[place] = {attempt->database, attempt->id, attempt->result_by, attempt->waits_from,
                          attempt->slot};
  attempts(queue)[place] = *attempt;
  queue->waiting_of[attempt->slot]++;
  queue->waiting++;
  return true;
}

// Drops the newest attempt of a policy. One that a writer has just copied is written all the same.
void DropNewest(Header *queue, Slot slot) {
  int newest = -1;
  for (int i = 0; i < queue->capacity; i++) {
    const Place &place = queue->places[i];
    if (place.database == InvalidOid || place.slot != slot) continue;
    if (newest < 0 || place.id > queue->places[newest].id) newest = i;
  }
  if (newest >= 0) Free(queue, newest);
}

// Runs in the postmaster, after all other processes have ended.
void Save() {
  Header *queue = header();
  if (queue->changing) {
    ereport(LOG, (errmsg("login attempts not yet written were lost"),
                  errdetail("A process was killed while it changed their queue.")));
    return;
  }
  pg::StateFileWriter file(kFile, kFileKind);
  file.Put(queue->last_id);
  file.Put(queue->waiting);
  for (int i = 0; i < queue->capacity; i++)
    if (queue->places[i].database != InvalidOid) file.Put(attempts(queue)[i]);
  file.Finish();
}

void Initialize(void *memory) {
  auto *queue = static_cast<Header *>(memory);
  queue->capacity = pg::settings::attempt_queue_size;
  {
    pg::StateFileReader file(kFile, kFileKind);
    int32 waiting = 0;
    file.Get(&queue->last_id);
    file.Get(&waiting);
    for (int32 i = 0; i < waiting; i++) {
      Attempt attempt;
      file.Get(&attempt);
      if (!file.ok()) break;
      if (!PutInto(queue, &attempt)) queue->dropped++;
    }
  }
  if (queue->dropped > 0)
    ereport(LOG, (errmsg("%llu login attempts were dropped", static_cast<unsigned long long>(queue->dropped)),
                  errhint("pg_redis_migrate.attempt_queue_size was larger when they were saved.")));
  // A crash must not bring back attempts that have been written to the table since.
  if (unlink(kFile) != 0 && errno != ENOENT)
    ereport(LOG, (errcode_for_file_access(), errmsg("could not remove file \"%s\": %m", kFile)));
}

// Holds the lock of the queue for a scope.
class Locked {
 public:
  explicit Locked(LWLockMode mode) : mode_(mode) {
    LWLockAcquire(attempt_area.lock(0), mode);
    if (mode_ == LW_EXCLUSIVE) header()->changing = true;
  }
  ~Locked() {
    if (mode_ == LW_EXCLUSIVE) header()->changing = false;
    LWLockRelease(attempt_area.lock(0));
  }
  Locked(const Locked &) = delete;
  Locked &operator=(const Locked &) = delete;

 private:
  LWLockMode mode_;
};

// The waits of this database that began before the clock was set back begin anew, for the same time: none is
// longer than the policy said. The caller does not hold the lock.
void CutWaits(TimestampTz now) {
  auto is_ahead = [&](const Place &place) { return place.database == MyDatabaseId && place.IsAhead(now); };
  {
    Locked lock(LW_SHARED);
    Header *queue = header();
    if (queue->waiting == 0 || std::none_of(queue->places, queue->places + queue->capacity, is_ahead)) return;
  }
  Locked lock(LW_EXCLUSIVE);
  Header *queue = header();
  for (int i = 0; i < queue->capacity; i++) {
    Place &place = queue->places[i];
    if (!is_ahead(place)) continue;
    Attempt &attempt = attempts(queue)[i];
    place.result_by = attempt.result_by = now + (place.result_by - place.waits_from);
    place.waits_from = attempt.waits_from = now;
  }
}

// `may_sleep`: leaves a registered writer asleep, which wakes up in time by itself.
void WakeWriter(bool may_sleep) {
  int pid = 0;
  {
    Locked lock(LW_SHARED);
    for (const auto &writer : header()->writers)
      if (writer.pid != 0 && writer.database == MyDatabaseId) pid = writer.pid;
  }
  if (pid == 0) {
    if (pg::signal_work != nullptr) pg::signal_work();
    return;
  }
  if (may_sleep) return;
  // If the process has just ended, its latch may belong to another one by now, which wakes up for nothing.
  PGPROC *proc = BackendPidGetProc(pid);
  if (proc != nullptr) SetLatch(&proc->procLatch);
}

void Unregister(int, Datum) {
  Locked lock(LW_EXCLUSIVE);
  for (auto &writer : header()->writers)
    if (writer.pid == MyProcPid) writer = {};
}

}  // namespace

pg::SharedArea attempt_area(
    "pg_redis_migrate attempts", AreaSize, [] { return 1; }, Initialize, Save);

bool AttemptQueue::Put(Slot slot, Attempt *attempt) {
  attempt->database = MyDatabaseId;
  attempt->slot = slot;
  bool put;
  {
    Locked lock(LW_EXCLUSIVE);
    Header *queue = header();
    attempt->id = queue->last_id = std::max<int64>(GetCurrentTimestamp(), queue->last_id + 1);
    put = PutInto(queue, attempt);
    if (!put) {
      const Slot loser = LockoutTable::LargestShare(queue->waiting_of, slot);
      queue->dropped++;
      LockoutTable::Count(loser, kDropped);
      if (loser != slot) {
        DropNewest(queue, loser);
        put = PutInto(queue, attempt);
      }
    }
  }
  if (put) WakeWriter(attempt->result_by != 0);
  return put;
}

bool AttemptQueue::Settle(int64 token, uint64 who, const Attempt &result) {
  bool found = false;
  TimestampTz const now = GetCurrentTimestamp();
  {
    Locked lock(LW_EXCLUSIVE);
    Header *queue = header();
    // Goes from the youngest to the oldest, as long as places are taken in turn.
    for (int n = 1; n <= queue->capacity && !found; n++) {
      int i = (queue->search_from - n + queue->capacity) % queue->capacity;
      Place &place = queue->places[i];
      // The writer may already have a copy of an attempt that has its result, or is due without one.
      if (place.database != MyDatabaseId || place.result_by <= now) continue;
      Attempt &attempt = attempts(queue)[i];
      if (attempt.token != token || attempt.who != who) continue;
      found = true;
      place.result_by = attempt.result_by = 0;
      attempt.success = result.success;
      attempt.reason = result.reason;
      attempt.locks = result.locks;
      attempt.locked_by = result.locked_by;
      attempt.locked_until = result.locked_until;
    }
  }
  if (found) WakeWriter(false);
  return found;
}

std::optional<TimestampTz> AttemptQueue::Due() {
  std::optional<TimestampTz> due;
  CutWaits(GetCurrentTimestamp());
  Locked lock(LW_SHARED);
  Header *queue = header();
  if (queue->waiting == 0) return due;
  for (int i = 0; i < queue->capacity; i++) {
    const Place &place = queue->places[i];
    if (place.database == MyDatabaseId && (!due || place.result_by < *due)) due = place.result_by;
  }
  return due;
}

int AttemptQueue::Copy(Attempt *to) {
  struct Found {
    int64 id;
    int place;
    bool operator<(const Found &other) const { return id < other.id; }
  };
  Found found[kMostCopied];  // a heap, the newest on top
  int count = 0;
  TimestampTz const now = GetCurrentTimestamp();
  CutWaits(now);
  Locked lock(LW_SHARED);
  Header *queue = header();
  if (queue->waiting == 0) return 0;
  for (int i = 0; i < queue->capacity; i++) {
    if (!queue->places[i].IsReady(now)) continue;
    if (count == kMostCopied) {
      if (queue->places[i].id > found[0].id) continue;
      std::pop_heap(found, found + count--);
    }
    found[count++] = {queue->places[i].id, i};
    std::push_heap(found, found + count);
  }
  std::sort_heap(found, found + count);
  for (int i = 0; i < count; i++) to[i] = attempts(queue)[found[i].place];
  return count;
}

void AttemptQueue::Release(const Attempt *done, int count) {
  Locked lock(LW_EXCLUSIVE);
  Header *queue = header();
  for (int i = 0; i < queue->capacity; i++) {
    Place &place = queue->places[i];
    if (place.database != MyDatabaseId) continue;
    const Attempt *found = std::lower_bound(done, done + count, place.id,
                                            [](const Attempt &attempt, int64 id) { return attempt.id < id; });
    if (found == done + count || found->id != place.id) continue;
    Free(queue, i);
  }
}

void AttemptQueue::RegisterWriter() {
  static bool registered = false;
  if (!registered) before_shmem_exit(Unregister, 0);
  registered = true;
  Locked lock(LW_EXCLUSIVE);
  decltype(&header()->writers[0]) free = nullptr;
  for (auto &writer : header()->writers) {
    if (writer.pid != 0 && writer.database == MyDatabaseId) writer = {};
    if (writer.pid == 0 && free == nullptr) free = &writer;
  }
  if (free == nullptr) return;  // the writer then finds its work by polling
  free->database = MyDatabaseId;
  free->pid = MyProcPid;
}

AttemptQueue::Counts AttemptQueue::GetCounts() {
  Locked lock(LW_SHARED);
  Header *queue = header();
  Counts counts{queue->capacity, queue->waiting, 0, queue->dropped};
  for (int i = 0; i < queue->capacity; i++)
    if (queue->places[i].database == MyDatabaseId) counts.waiting_here++;
  return counts;
}

}  // namespace prm::lockout
