// Moves attempts from the queue to the table. A writer copies a batch, commits its rows, and only then
// releases the places. If it dies in between, the next writer finds the rows and skips them.
#include <arpa/inet.h>

#include "lockout/login.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/session_lock.h"
#include "pg/spi.h"

namespace prm::lockout {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

std::string AddressText(const pg::Network &address) {
  if (address.family == 0) return "";
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(address.family == 6 ? AF_INET6 : AF_INET, address.bytes, text, sizeof text);
}

// The batch as columns, for unnest. An empty text and the time 0 become NULL.
struct Columns {
  std::vector<int64> ids, owners, times, locked_until;
  std::vector<std::string> policies, user_names, addresses, user_agents, types, successes, reasons, locks,
      locked_by, channels;

  Columns(const Attempt *attempts, int count) {
    for (const Attempt *a = attempts; a < attempts + count; ++a) {
      ids.push_back(a->id);
      times.push_back(a->at);
      policies.emplace_back(a->policy.get());
      owners.push_back(a->owner);
      user_names.emplace_back(a->user_name.get());
      addresses.push_back(AddressText(a->address));
      user_agents.emplace_back(a->user_agent.get());
      types.emplace_back(a->attempt_type.get());
      successes.push_back(!a->has_success ? "" : a->success ? "t" : "f");
      reasons.emplace_back(a->reason.get());
      locks.push_back(a->locks ? "t" : "f");
      locked_by.emplace_back(a->locked_by.get());
      locked_until.push_back(a->locked_until);
      channels.emplace_back(a->notify_channel.get());
    }
  }
};

void Write(const Attempt *attempts, int count) {
  Columns columns(attempts, count);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(WITH batch AS (
                SELECT *
                FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
                    AS b (id, at, policy, owner, user_name, address, user_agent, attempt_type, success,
                          reason, locks, locked_by, locked_until, channel)),
            written AS (
                INSERT INTO redis_migrate.login_attempt
                    (attempt_id, attempted_at, policy, owner, user_name, address, user_agent, attempt_type,
                     success, reason, locks, locked_by, locked_until)
                SELECT id, at, policy, redis_migrate.stamp_owner(owner::oid), nullif(user_name, ''),
                    nullif(address, '')::inet, nullif(user_agent, ''), attempt_type,
                    nullif(success, '')::boolean, nullif(reason, ''), locks::boolean,
                    nullif(locked_by, ''), nullif(locked_until, '2000-01-01 00:00:00+00')
                FROM batch
                ORDER BY id
                ON CONFLICT (attempt_id) DO NOTHING
                RETURNING *)
            -- A listener is notified of a lock once, and only after the row is there.
            SELECT pg_notify(b.channel,
                             json_build_object('policy', w.policy, 'user_name', w.user_name,
                                               'address', host(w.address), 'locked_by', w.locked_by,
                                               'locked_until', w.locked_until)::text)
            FROM written AS w JOIN batch AS b ON b.id = w.attempt_id
            WHERE w.locks AND b.channel <> '')sql",
      {SqlParam::Int8Array(columns.ids), SqlParam::TimestampTzArray(columns.times),
       SqlParam::TextArray(columns.policies), SqlParam::Int8Array(columns.owners),
       SqlParam::TextArray(columns.user_names), SqlParam::TextArray(columns.addresses),
       SqlParam::TextArray(columns.user_agents), SqlParam::TextArray(columns.types),
       SqlParam::TextArray(columns.successes), SqlParam::TextArray(columns.reasons),
       SqlParam::TextArray(columns.locks), SqlParam::TextArray(columns.locked_by),
       SqlParam::TimestampTzArray(columns.locked_until), SqlParam::TextArray(columns.channels)});
}

}  // namespace
}  // namespace prm::lockout

using namespace prm;
using namespace prm::lockout;

// redis_migrate.write_login_attempts(): writes what waits in the queue of this database, a batch per
// transaction; returns at once when another session does so already. Errors: 2D000 in a transaction block,
// 55000 not preloaded, 25006 on a standby.
PRM_FUNCTION(write_login_attempts) {
  pg::RequireNonAtomic(fcinfo, "redis_migrate.write_login_attempts commits after each batch");
  LockoutTable::Require();
  pg::Call([] { PreventCommandIfReadOnly("CALL redis_migrate.write_login_attempts()"); });
  // Only a worker stays, and has to be woken when there is work again.
  if (MyBgworkerEntry != nullptr) pg::Call([] { AttemptQueue::RegisterWriter(); });
  pg::Spi spi(true);
  // One writer per database at a time, across commits.
  pg::SessionLock lock(pg::LockTag(pg::kAttemptLocks, 0), ExclusiveLock);
  if (!lock.TryTake()) return 0;
  std::vector<Attempt> batch(AttemptQueue::kMostCopied);
  int count;
  do {
    pg::Call([] { CHECK_FOR_INTERRUPTS(); });
    count = AttemptQueue::Copy(batch.data());
    if (count == 0) break;
    Write(batch.data(), count);
    pg::Spi::Commit();
    AttemptQueue::Release(batch.data(), count);
  } while (count == AttemptQueue::kMostCopied);
  return 0;
}

// redis_migrate.attempts_due(): see the SQL comment. NULL if the library is not preloaded.
PRM_FUNCTION(attempts_due) {
  std::optional<TimestampTz> due;
  if (attempt_area.memory() != nullptr) due = AttemptQueue::Due();
  if (!due) PG_RETURN_NULL();
  PG_RETURN_TIMESTAMPTZ(*due);
}

// redis_migrate.login_attempt_queue(): (capacity, waiting, waiting_here, dropped); no row where the library
// is not preloaded.
PRM_FUNCTION(login_attempt_queue) {
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  if (attempt_area.memory() == nullptr) return 0;
  auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
  AttemptQueue::Counts counts = AttemptQueue::GetCounts();
  Datum values[] = {Int64GetDatum(counts.capacity), Int64GetDatum(counts.waiting),
                    Int64GetDatum(counts.waiting_here), Int64GetDatum(static_cast<int64>(counts.dropped))};
  bool nulls[4] = {};
  pg::Call([&] { tuplestore_putvalues(result->setResult, result->setDesc, values, nulls); });
  return 0;
}
