// The SQL functions for statistics of rate limits, and for saving them.
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/spi.h"
#include "ratelimit/memory.h"
#include "ratelimit/policy.h"

namespace prm::ratelimit {
namespace {

using pg::Failure;

}  // namespace

// rate_limit_counters() → rows of (policy_id, allowed, limited, shadow, blocked, evictions, entries) of this
// database; ad-hoc limits have policy_id -1, the policies of all databases that share a slot NULL. No rows
// without shared memory. Reads the whole table of states.
PRM_FUNCTION(rate_limit_counters) {
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  if (!MemoryAvailable()) PG_RETURN_NULL();
  std::vector<uint64> entries(kSlots);
  state_table.ForEach(pg::SecondsDown(ClockNow()),
                      [&](const Hash128 &, const RateState &, Slot slot, pg::Seconds) {
                        if (slot < kSlots) entries[slot]++;
                      });
  auto *info = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  for (Slot slot = 0; slot < kSlots; slot++) {
    PolicyKey policy{};
    const bool shared = slot == kSharedSlot;
    if (!shared && (!SlotPolicy(slot, &policy) || policy.database != MyDatabaseId)) continue;
    uint64 counts[kCounters];
    ReadCounters(slot, counts);
    if (shared && entries[slot] == 0 &&
        std::all_of(counts, counts + kCounters, [](uint64 n) { return n == 0; }))
      continue;
    Datum values[2 + kCounters] = {Int64GetDatum(policy.policy_id)};
    bool nulls[2 + kCounters] = {shared};
    for (int i = 0; i < kCounters; i++) values[1 + i] = Int64GetDatum(static_cast<int64>(counts[i]));
    values[1 + kCounters] = Int64GetDatum(static_cast<int64>(entries[slot]));
    pg::Call([&] { tuplestore_putvalues(info->setResult, info->setDesc, values, nulls); });
  }
  PG_RETURN_NULL();
}

// rate_limit_capacity() → (bytes, keys): the shared memory of all databases' limits; NULL where there is
// none.
PRM_FUNCTION(rate_limit_capacity) {
  if (!MemoryAvailable()) PG_RETURN_NULL();
  TupleDesc desc;
  Datum values[] = {Int64GetDatum(static_cast<int64>(state_table.capacity() * StateTable::kEntryBytes)),
                    Int64GetDatum(static_cast<int64>(state_table.capacity()))};
  bool nulls[] = {false, false};
  return pg::Call([&] {
    if (get_call_result_type(fcinfo, nullptr, &desc) != TYPEFUNC_COMPOSITE)
      ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("unexpected result type")));
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
  });
}

// reset_rate_limit_stats(policy text). Errors: 42704, 42501.
PRM_FUNCTION(reset_rate_limit_stats) {
  const std::string name = pg::TextArgument(fcinfo, 0, "policy");
  RefreshPolicies();
  const Policy &policy = PolicyNamed(name);
  if (!pg::HasOwnerRights(policy.owner, GetUserId()))
    throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of rate limit policy \"" + name + "\"",
                  pg::OwnerDetail(policy.owner), pg::OwnerHint(policy.owner, "rate limit", name));
  if (MemoryAvailable()) ResetCounters(policy.slot);
  PG_RETURN_VOID();
}

// save_rate_limits() → boolean: saves now, as a background process does every few seconds. Errors: 55000
// without shared memory.
PRM_FUNCTION(save_rate_limits) {
  if (!MemoryAvailable())
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "there is no shared memory to save", "",
                  "Add pg_redis_migrate to shared_preload_libraries and restart the server.");
  PG_RETURN_BOOL(SaveShared());
}

}  // namespace prm::ratelimit
