#include "ratelimit/memory.h"

#include "pg/at_commit.h"
#include "pg/guard.h"
#include "pg/settings.h"
#include "pg/time.h"

namespace prm::ratelimit {
namespace {

constexpr char kFile[] = "pg_stat/pg_redis_migrate.rate_limits";
constexpr uint64 kFileKind = (UINT64CONST(2) << 32) | StateTable::kEntryBytes;  // version, layout

constexpr int kStripes = 4;

// Counters that one in kStripes processes adds to.
struct alignas(64) Stripe {
  pg_atomic_uint64 counts[kCounters];
};

struct alignas(64) SlotCounters {
  PolicyKey policy;  // database InvalidOid: free
  Oid role;
  pg_atomic_uint64 logged_minute;
  pg_atomic_uint64 logged;  // refusals already logged
  Stripe stripes[kStripes];
};

struct Memory {
  SlotCounters slots[kSlots];
  pg_atomic_uint64 saved_at;  // nanoseconds since 1970
};

constexpr size_t kTableOffset = (sizeof(Memory) + 63) / 64 * 64;
constexpr int kSlotLock = StateTable::kPartitions;
constexpr int kSaveLock = kSlotLock + 1;

size_t TableBytes() { return static_cast<size_t>(pg::settings::rate_limit_memory_kb) * 1024; }

Memory *memory() { return static_cast<Memory *>(memory_area.memory()); }

// A slot in the file; InvalidOid ends the list.
struct SavedSlot {
  PolicyKey policy;
  uint64 counts[kCounters];
  Oid role;
  Slot slot;
};

SlotOwner OwnerOf(const void *of_memory, Slot slot) {
  const SlotCounters &counters = static_cast<const Memory *>(of_memory)->slots[slot < kSlots ? slot : 0];
  return {counters.policy.database, counters.role};
}

void LoadMemory(Memory *into) {
  pg::StateFileReader file(kFile, kFileKind);
  if (!file.ok()) return;
  for (;;) {
    SavedSlot saved;
    file.Get(&saved);
    if (!file.ok() || !OidIsValid(saved.policy.database)) break;
    if (saved.slot >= kSlots) continue;
    into->slots[saved.slot].policy = saved.policy;
    into->slots[saved.slot].role = saved.role;
    for (int i = 0; i < kCounters; i++)
      pg_atomic_write_u64(&into->slots[saved.slot].stripes[0].counts[i], saved.counts[i]);
  }
  uint64 lost = state_table.Load(file, into, pg::SecondsDown(ClockNow()), RateShares{OwnerOf, into},
                                 [](Slot slot) { return slot < kSlots ? slot : kSharedSlot; });
  if (lost > 0)
    ereport(LOG, (errmsg("%llu saved rate limits did not fit into pg_redis_migrate.rate_limit_memory",
                         static_cast<unsigned long long>(lost))));
}

void InitializeMemory(void *at) {
  auto *fresh = static_cast<Memory *>(at);
  for (SlotCounters &slot : fresh->slots) {
    pg_atomic_init_u64(&slot.logged_minute, 0);
    pg_atomic_init_u64(&slot.logged, 0);
    for (Stripe &stripe : slot.stripes)
      for (pg_atomic_uint64 &count : stripe.counts) pg_atomic_init_u64(&count, 0);
  }
  pg_atomic_init_u64(&fresh->saved_at, static_cast<uint64>(ClockNow()));
  state_table.Initialize(at, TableBytes());
  LoadMemory(fresh);
}

bool Save(bool alone) {
  state_table.TakeChanged();
  pg::StateFileWriter file(kFile, kFileKind);
  for (int i = 0; i < kSlots; i++) {
    SavedSlot saved = {};
    saved.slot = static_cast<Slot>(i);
    if (!SlotPolicy(saved.slot, &saved.policy)) continue;
    saved.role = memory()->slots[i].role;
    ReadCounters(saved.slot, saved.counts);
    file.Put(saved);
  }
  file.Put(SavedSlot{});
  state_table.Save(file, pg::SecondsDown(ClockNow()), alone);
  bool done = file.Finish();
  if (!done) state_table.NoteUnsaved();
  return done;
}

// All other processes have ended.
void SaveAtShutdown() { Save(true); }

void TakeSlot(SlotCounters *slot, const PolicyKey &policy) {
  slot->policy = policy;
  pg_atomic_write_u64(&slot->logged_minute, 0);
  pg_atomic_write_u64(&slot->logged, 0);
  for (Stripe &stripe : slot->stripes)
    for (pg_atomic_uint64 &count : stripe.counts) pg_atomic_write_u64(&count, 0);
}

bool Same(const PolicyKey &a, const PolicyKey &b) {
  return a.database == b.database && a.policy_id == b.policy_id;
}

// The caller holds kSlotLock.
Slot FindSlot(const PolicyKey &policy, Slot *free, bool *may_take) {
  int left = 0, taken = 0;
  for (Slot slot = 1; slot < kSlots; slot++) {
    const PolicyKey &known = memory()->slots[slot].policy;
    if (Same(known, policy)) return slot;
    if (!OidIsValid(known.database) && left++ == 0) *free = slot;
    taken += known.database == policy.database;
  }
  *may_take = taken < left;
  return kSharedSlot;
}

// The caller holds kSlotLock.
Slot FindOrTake(const PolicyKey &policy, Oid role) {
  Slot free = kSharedSlot;
  bool may_take = false;
  Slot found = FindSlot(policy, &free, &may_take);
  if (found == kSharedSlot && may_take) TakeSlot(&memory()->slots[found = free], policy);
  if (found != kSharedSlot) memory()->slots[found].role = role;
  return found;
}

// Called at the end of a transaction: must not raise errors.
void ForgetSlot(uint64 slot) {
  state_table.RemoveIf(0, [&](const Hash128 &, const RateState &, Slot owner) { return owner == slot; });
  state_table.NoteChange();
}

}  // namespace

pg::SharedArea memory_area(
    "pg_redis_migrate_rate_limits", [] { return kTableOffset + StateTable::Bytes(TableBytes()); },
    [] { return kSaveLock + 1; }, InitializeMemory, SaveAtShutdown);
StateTable state_table(&memory_area, kTableOffset, 0);

RateShares Shares() { return {OwnerOf, memory()}; }

Slot SlotOf(const PolicyKey &policy, Oid role, bool (*exists)(const PolicyKey &)) {
  LWLock *lock = memory_area.lock(kSlotLock);
  auto find_or_take = [&] {
    LWLockAcquire(lock, LW_EXCLUSIVE);
    const Slot found = FindOrTake(policy, role);
    LWLockRelease(lock);
    return found;
  };
  Slot found = find_or_take();
  for (Slot slot = 1; found == kSharedSlot && exists != nullptr && slot < kSlots; slot++) {
    PolicyKey taken;
    if (!SlotPolicy(slot, &taken) || exists(taken)) continue;
    LWLockAcquire(lock, LW_EXCLUSIVE);
    if (Same(memory()->slots[slot].policy, taken)) memory()->slots[slot].policy = PolicyKey{};
    LWLockRelease(lock);
    found = find_or_take();
  }
  return found;
}

void ForgetAtCommit(int64 policy_id) {
  if (!MemoryAvailable()) return;
  LWLock *lock = memory_area.lock(kSlotLock);
  Slot free;
  bool may_take;
  LWLockAcquire(lock, LW_SHARED);
  const uint64 slot = FindSlot(PolicyKey{MyDatabaseId, policy_id}, &free, &may_take);
  LWLockRelease(lock);
  if (slot != kSharedSlot) pg::Call([&] { pg::AtCommit(ForgetSlot, slot); });
}

bool SlotPolicy(Slot slot, PolicyKey *policy) {
  *policy = memory()->slots[slot].policy;
  return OidIsValid(policy->database);
}

void Count(Slot slot, Counter counter, uint64 by) {
  pg_atomic_fetch_add_u64(&memory()->slots[slot].stripes[MyProcPid % kStripes].counts[counter], by);
}

void ReadCounters(Slot slot, uint64 (&counts)[kCounters]) {
  for (int i = 0; i < kCounters; i++) {
    counts[i] = 0;
    for (Stripe &stripe : memory()->slots[slot].stripes) counts[i] += pg_atomic_read_u64(&stripe.counts[i]);
  }
}

void ResetCounters(Slot slot) {
  for (Stripe &stripe : memory()->slots[slot].stripes)
    for (pg_atomic_uint64 &count : stripe.counts) pg_atomic_write_u64(&count, 0);
  pg_atomic_write_u64(&memory()->slots[slot].logged, 0);
}

bool TimeToLogRefusals(Slot slot, int64 now, uint64 *refused) {
  SlotCounters *counters = &memory()->slots[slot];
  const uint64 minute = static_cast<uint64>(now / (60 * pg::kSecondNs));
  uint64 logged_minute = pg_atomic_read_u64(&counters->logged_minute);
  if (logged_minute >= minute ||
      !pg_atomic_compare_exchange_u64(&counters->logged_minute, &logged_minute, minute))
    return false;
  uint64 counts[kCounters];
  ReadCounters(slot, counts);
  const uint64 all = counts[kLimited] + counts[kBlocked];
  const uint64 logged = pg_atomic_exchange_u64(&counters->logged, all);
  *refused = all > logged ? all - logged : all;
  return true;
}

bool SaveShared() {
  if (!MemoryAvailable()) return false;
  LWLock *lock = memory_area.lock(kSaveLock);
  LWLockAcquire(lock, LW_EXCLUSIVE);
  bool done = Save(false);
  pg_atomic_write_u64(&memory()->saved_at, static_cast<uint64>(ClockNow()));
  LWLockRelease(lock);
  return done;
}

long SaveIfDue() {
  const int64 interval = pg::settings::rate_limit_save_interval_ms;
  if (!MemoryAvailable() || interval == 0 || !state_table.changed()) return -1;
  const int64 passed =
      (ClockNow() - static_cast<int64>(pg_atomic_read_u64(&memory()->saved_at))) / pg::kMillisecondNs;
  if (passed >= 0 && passed < interval) return static_cast<long>(interval - passed);
  return SaveShared() ? -1 : static_cast<long>(interval);
}

}  // namespace prm::ratelimit
