#include "lockout/lockout_table.h"

#include "pg/error.h"
#include "pg/settings.h"

namespace prm::lockout {
namespace {

using pg::StateFileReader;
using pg::StateFileWriter;

constexpr char kFile[] = "pg_stat/pg_redis_migrate.lockouts";
constexpr uint64 kFileKind = UINT64CONST(0x4c4f434b00000001);  // "LOCK", version 1
constexpr int64 kSaveEvery = 5 * USECS_PER_SEC;

enum AreaLock { kSlotLock, kFirstTableLock };

struct Slot {
  Oid database;  // 0: free
  pg_uuid_t policy;
  TimestampTz since;
  pg_atomic_uint64 counts[kStatistics];
};

struct Header {
  TimestampTz saved_at;  // the launcher's own
  Slot slots[LockoutTable::kSlots];
};

constexpr size_t kTableOffset = MAXALIGN(sizeof(Header)) / 64 * 64 + 64;

size_t TableSize() { return static_cast<size_t>(pg::settings::lockout_memory_kb) * 1024; }

size_t AreaSize() { return kTableOffset + LockoutTable::Table::Bytes(TableSize()); }

int AreaLocks() { return kFirstTableLock + LockoutTable::Table::kPartitions; }

LockoutTable::Table shared_table(&lockout_area, kTableOffset, kFirstTableLock);

Header *header() { return static_cast<Header *>(lockout_area.memory()); }

void InitializeSlot(Slot *slot, Oid database, const pg_uuid_t &policy, TimestampTz since) {
  slot->database = database;
  slot->policy = policy;
  slot->since = since;
  for (auto &count : slot->counts) pg_atomic_init_u64(&count, 0);
}

struct SavedSlot {
  Oid database;
  pg_uuid_t policy;
  TimestampTz since;
  uint64 counts[kStatistics];
};

void Save(bool alone) {
  shared_table.TakeChanged();
  pg::StateFileWriter file(kFile, kFileKind);
  for (Slot &slot : header()->slots) {
    SavedSlot saved{slot.database, slot.policy, slot.since, {}};
    for (int i = 0; i < kStatistics; i++) saved.counts[i] = pg_atomic_read_u64(&slot.counts[i]);
    file.Put(saved);
  }
  shared_table.Save(file, SecondsOf(GetCurrentTimestamp()), alone);
  if (!file.Finish()) shared_table.NoteUnsaved();
}

// Runs in the postmaster, also after a crash.
void Initialize(void *memory) {
  auto *fresh = static_cast<Header *>(memory);
  for (Slot &slot : fresh->slots) InitializeSlot(&slot, InvalidOid, {}, 0);
  shared_table.Initialize(memory, TableSize());
  pg::StateFileReader file(kFile, kFileKind);
  for (Slot &slot : fresh->slots) {
    SavedSlot saved;
    file.Get(&saved);
    if (!file.ok()) return;
    InitializeSlot(&slot, saved.database, saved.policy, saved.since);
    for (int i = 0; i < kStatistics; i++) pg_atomic_write_u64(&slot.counts[i], saved.counts[i]);
  }
  uint64 lost = shared_table.Load(file, memory, SecondsOf(GetCurrentTimestamp()),
                                  [](LockoutTable::Table::Owner owner) { return owner; });
  if (lost > 0)
    ereport(LOG, (errmsg("%llu counters of lockouts were forgotten", static_cast<unsigned long long>(lost)),
                  errhint("pg_redis_migrate.lockout_memory was larger when they were saved.")));
}

}  // namespace

pg::SharedArea lockout_area("pg_redis_migrate lockouts", AreaSize, AreaLocks, Initialize, [] { Save(true); });

void LockoutTable::Require() {
  if (lockout_area.memory() != nullptr) return;
  throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "lockouts need pg_redis_migrate in shared_preload_libraries",
                    "Attempts are counted in shared memory, which a library gets at server start only.",
                    "Add it to shared_preload_libraries in postgresql.conf and restart the server.");
}

const LockoutTable::Table &LockoutTable::table() { return shared_table; }

LockoutTable::Table::Owner LockoutTable::SlotOf(const pg_uuid_t &policy) {
  auto find = [&] {
    for (int i = 0; i < kSlots; i++) {
      const Slot &slot = header()->slots[i];
      if (slot.database == InvalidOid) return i;
      if (slot.database == MyDatabaseId && memcmp(&slot.policy, &policy, sizeof policy) == 0) return i;
    }
    return kSlots - 1;
  };
  LWLockAcquire(lockout_area.lock(kSlotLock), LW_SHARED);
  int found = find();
  bool is_new = header()->slots[found].database == InvalidOid;
  LWLockRelease(lockout_area.lock(kSlotLock));
  if (is_new) {
    LWLockAcquire(lockout_area.lock(kSlotLock), LW_EXCLUSIVE);
    found = find();
    Slot &slot = header()->slots[found];
    if (slot.database == InvalidOid) InitializeSlot(&slot, MyDatabaseId, policy, GetCurrentTimestamp());
    LWLockRelease(lockout_area.lock(kSlotLock));
  }
  return static_cast<Table::Owner>(found);
}

void LockoutTable::TakeSlot(const pg_uuid_t &policy, bool (*exists)(Oid database, const pg_uuid_t &policy)) {
  auto belongs = [](const Slot &slot, Oid database, const pg_uuid_t &to) {
    return slot.database == database && memcmp(&slot.policy, &to, sizeof to) == 0;
  };
  if (belongs(header()->slots[SlotOf(policy)], MyDatabaseId, policy)) return;
  for (int i = 0; i < kSlots; i++) {
    Slot &slot = header()->slots[i];
    LWLockAcquire(lockout_area.lock(kSlotLock), LW_SHARED);
    const Oid database = slot.database;
    const pg_uuid_t owner = slot.policy;
    LWLockRelease(lockout_area.lock(kSlotLock));
    if (exists(database, owner)) continue;
    shared_table.RemoveIf(
        0, [&](const Hash128 &, const LockoutEntry &, Table::Owner counted_for) { return counted_for == i; });
    LWLockAcquire(lockout_area.lock(kSlotLock), LW_EXCLUSIVE);
    const bool unchanged = belongs(slot, database, owner);
    if (unchanged) InitializeSlot(&slot, MyDatabaseId, policy, GetCurrentTimestamp());
    LWLockRelease(lockout_area.lock(kSlotLock));
    if (unchanged) return;
  }
}

std::optional<pg_uuid_t> LockoutTable::PolicyOf(int slot) {
  std::optional<pg_uuid_t> policy;
  LWLockAcquire(lockout_area.lock(kSlotLock), LW_SHARED);
  if (header()->slots[slot].database == MyDatabaseId) policy = header()->slots[slot].policy;
  LWLockRelease(lockout_area.lock(kSlotLock));
  return policy;
}

void LockoutTable::Count(Table::Owner slot, LockoutStatistic what, uint64 times) {
  if (times > 0) pg_atomic_fetch_add_u64(&header()->slots[slot].counts[what], times);
}

uint64 LockoutTable::Counted(Table::Owner slot, LockoutStatistic what) {
  return pg_atomic_read_u64(&header()->slots[slot].counts[what]);
}

TimestampTz LockoutTable::CountedSince(Table::Owner slot) { return header()->slots[slot].since; }

void LockoutTable::ResetCounts(Table::Owner slot) {
  for (auto &count : header()->slots[slot].counts) pg_atomic_write_u64(&count, 0);
  header()->slots[slot].since = GetCurrentTimestamp();
}

long LockoutTable::SaveIfDue() {
  if (lockout_area.memory() == nullptr || !shared_table.changed()) return -1;
  TimestampTz now = GetCurrentTimestamp();
  int64 passed = now - header()->saved_at;
  if (passed >= 0 && passed < kSaveEvery) return static_cast<long>((kSaveEvery - passed) / 1000 + 1);
  Save(false);
  header()->saved_at = GetCurrentTimestamp();
  return shared_table.changed() ? static_cast<long>(kSaveEvery / 1000) : -1;
}

}  // namespace prm::lockout
