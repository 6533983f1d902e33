#include "lockout/lockout_table.h"

#include "pg/at_commit.h"
#include "pg/guard.h"
#include "pg/settings.h"

namespace prm::lockout {
namespace {

using pg::StateFileReader;
using pg::StateFileWriter;

constexpr char kFile[] = "pg_stat/pg_redis_migrate.lockouts";
constexpr uint64 kFileKind = UINT64CONST(0x4c4f434b00000003);  // "LOCK", version 3
constexpr int64 kSaveEvery = 5 * USECS_PER_SEC;

enum AreaLock { kSlotLock, kFirstTableLock };

struct Slot : PolicySlot {
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

PolicySlot SlotIn(const void *memory, LockoutTable::Table::Owner owner) {
  return static_cast<const Header *>(memory)->slots[std::min<int>(owner, LockoutTable::kSlots - 1)];
}

void InitializeSlot(Slot *slot, PolicySlot whose, const pg_uuid_t &policy, TimestampTz since) {
  static_cast<PolicySlot &>(*slot) = whose;
  slot->policy = policy;
  slot->since = since;
  for (auto &count : slot->counts) pg_atomic_init_u64(&count, 0);
}

struct SavedSlot {
  PolicySlot whose;
  pg_uuid_t policy;
  TimestampTz since;
  uint64 counts[kStatistics];
};

void Save(bool alone) {
  shared_table.TakeChanged();
  pg::StateFileWriter file(kFile, kFileKind);
  for (Slot &slot : header()->slots) {
    SavedSlot saved{slot, slot.policy, slot.since, {}};
    for (int i = 0; i < kStatistics; i++) saved.counts[i] = pg_atomic_read_u64(&slot.counts[i]);
    file.Put(saved);
  }
  shared_table.Save(file, SecondsOf(GetCurrentTimestamp()), alone);
  if (!file.Finish()) shared_table.NoteUnsaved();
}

// Runs in the postmaster, also after a crash.
void Initialize(void *memory) {
  auto *fresh = static_cast<Header *>(memory);
  for (Slot &slot : fresh->slots) InitializeSlot(&slot, {}, {}, 0);
  shared_table.Initialize(memory, TableSize());
  pg::StateFileReader file(kFile, kFileKind);
  for (Slot &slot : fresh->slots) {
    SavedSlot saved;
    file.Get(&saved);
    if (!file.ok()) return;
    InitializeSlot(&slot, saved.whose, saved.policy, saved.since);
    for (int i = 0; i < kStatistics; i++) pg_atomic_write_u64(&slot.counts[i], saved.counts[i]);
  }
  uint64 lost =
      shared_table.Load(file, memory, SecondsOf(GetCurrentTimestamp()), LockoutShares{SlotIn, memory},
                        [](LockoutTable::Table::Owner owner) {
                          return std::min<LockoutTable::Table::Owner>(owner, LockoutTable::kSlots - 1);
                        });
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
                    "Attempts are counted in shared memory, which is allocated only at server start.",
                    "Add it to shared_preload_libraries in postgresql.conf and restart the server.");
}

const LockoutTable::Table &LockoutTable::table() { return shared_table; }

LockoutShares LockoutTable::Shares() { return {SlotIn, header()}; }

LockoutTable::Table::Place LockoutTable::Insert(const Hash128 &key, Table::Owner slot,
                                                const LockoutEntry &entry, Seconds now, Seconds expires,
                                                Table::Spare spare) {
  Table::Evicted evicted;
  Table::Place place = shared_table.Insert(key, slot, entry, now, expires, Shares(), &evicted, spare);
  if (evicted.owner != Table::kNobody) {
    Count(evicted.owner, kEvicted);
    Count(evicted.owner, kLocksEvicted, evicted.precious);
  }
  return place;
}

uint32 LockoutTable::PolicyHash(const pg_uuid_t &policy) {
  std::string bytes(reinterpret_cast<const char *>(&MyDatabaseId), sizeof MyDatabaseId);
  bytes.append(reinterpret_cast<const char *>(&policy), sizeof policy);
  return static_cast<uint32>(SipHash128(shared_table.secret(), bytes).low);
}

void LockoutTable::ForgetAtCommit(const pg_uuid_t &policy) {
  if (lockout_area.memory() == nullptr) return;
  const uint64 hash = PolicyHash(policy);
  auto forget = [](uint64 dropped) {
    shared_table.RemoveIf(
        0, [&](const Hash128 &, const LockoutEntry &entry, Table::Owner) { return entry.policy == dropped; });
    shared_table.NoteChange();
  };
  pg::Call([&] { pg::AtCommit(forget, hash); });
}

namespace {

bool Belongs(const Slot &slot, Oid database, const pg_uuid_t &policy) {
  return slot.database == database && memcmp(&slot.policy, &policy, sizeof policy) == 0;
}

// The slot of a policy, or one that it may take, or else the last. The caller holds the lock of the slots.
int FindSlot(const pg_uuid_t &policy) {
  constexpr int kLast = LockoutTable::kSlots - 1;
  int free = kLast, left = 0, taken = 0;
  for (int i = 0; i < kLast; i++) {
    const Slot &slot = header()->slots[i];
    if (slot.database == InvalidOid) {
      if (left++ == 0) free = i;
    } else if (slot.database == MyDatabaseId) {
      if (Belongs(slot, MyDatabaseId, policy)) return i;
      taken++;
    }
  }
  return taken < left ? free : kLast;
}

// The caller holds the lock of the slots exclusively.
int FindOrTakeSlot(const pg_uuid_t &policy, Oid role) {
  const int found = FindSlot(policy);
  Slot *slot = &header()->slots[found];
  if (slot->database == InvalidOid) {
    // The last slot is shared: its role and policy are those of no policy.
    const bool shared = found == LockoutTable::kSlots - 1;
    if (!shared) InitializeSlot(slot, {MyDatabaseId, role}, policy, GetCurrentTimestamp());
  } else {
    slot->role = role;
  }
  return found;
}

}  // namespace

LockoutTable::Table::Owner LockoutTable::SlotOf(const pg_uuid_t &policy, Oid role) {
  LWLockAcquire(lockout_area.lock(kSlotLock), LW_SHARED);
  int found = FindSlot(policy);
  const PolicySlot whose = header()->slots[found];
  LWLockRelease(lockout_area.lock(kSlotLock));
  if (found < kSlots - 1 && (whose.database != MyDatabaseId || whose.role != role)) {
    LWLockAcquire(lockout_area.lock(kSlotLock), LW_EXCLUSIVE);
    found = FindOrTakeSlot(policy, role);
    LWLockRelease(lockout_area.lock(kSlotLock));
  }
  return static_cast<Table::Owner>(found);
}

void LockoutTable::TakeSlot(const pg_uuid_t &policy, Oid role,
                            bool (*exists)(Oid database, const pg_uuid_t &policy)) {
  for (int i = 0; SlotOf(policy, role) == kSlots - 1 && i < kSlots - 1; i++) {
    Slot &slot = header()->slots[i];
    LWLockAcquire(lockout_area.lock(kSlotLock), LW_SHARED);
    const Oid database = slot.database;
    const pg_uuid_t owner = slot.policy;
    LWLockRelease(lockout_area.lock(kSlotLock));
    if (database == InvalidOid || exists(database, owner)) continue;
    shared_table.RemoveIf(
        0, [&](const Hash128 &, const LockoutEntry &, Table::Owner counted_for) { return counted_for == i; });
    LWLockAcquire(lockout_area.lock(kSlotLock), LW_EXCLUSIVE);
    if (Belongs(slot, database, owner)) InitializeSlot(&slot, {}, {}, 0);
    LWLockRelease(lockout_area.lock(kSlotLock));
  }
}

LockoutTable::Table::Owner LockoutTable::LargestShare(const uint32 *held, Table::Owner newcomer) {
  const LockoutShares shares = Shares();
  Table::Owner slots[kSlots];
  Table::Owner *begin = slots, *end = slots;
  for (int slot = 0; slot < kSlots; slot++)
    if (held[slot] > 0 || slot == newcomer) *end++ = static_cast<Table::Owner>(slot);
  for (int level = 0; level < LockoutShares::kLevels; level++) {
    std::sort(begin, end, [&](Table::Owner a, Table::Owner b) {
      return shares.Group(level, a) < shares.Group(level, b);
    });
    std::pair<uint64, bool> most{0, false};
    Table::Owner *most_begin = begin, *most_end = end;
    for (Table::Owner *group = begin; group < end;) {
      std::pair<uint64, bool> size{0, false};
      Table::Owner *next = group;
      for (; next < end && shares.Group(level, *next) == shares.Group(level, *group); ++next) {
        size.first += held[*next] + (*next == newcomer);
        size.second = size.second || *next == newcomer;
      }
      if (size > most) {
        most = size;
        most_begin = group;
        most_end = next;
      }
      group = next;
    }
    begin = most_begin;
    end = most_end;
  }
  return *begin;
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
