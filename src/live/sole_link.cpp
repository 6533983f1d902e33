#include "live/sole_link.h"

#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/wait.h"
#include "redis/twin_link.h"

namespace prm {

namespace {

constexpr int64 kMostWaitMs = 30 * 1000;

}  // namespace

SoleLink::SoleLink(const std::string &migration, int64 run_id) : migration_(migration) {
  pg::AsExtensionOwner as_owner;
  name_ = pg::Spi::Execute(
              R"sql(SELECT format('pg_redis_migrate:%s:%s:%s', instance, oid, $2)
                    FROM redis_migrate.background_run, pg_database
                    WHERE migration = $1 AND datname = current_database())sql",
              {pg::SqlParam::Text(migration), pg::SqlParam::Int8(run_id)})[0]
              .Text(0);
}

void SoleLink::Require(redis::Connection &connection) {
  std::optional<std::string> const twin = pg::ValueOrThrow(redis::FindTwinLink(connection, name_));
  if (!twin) return since_ms_.reset();
  int64 const now_ms = pg::MonotonicMs();
  if (!since_ms_) since_ms_ = now_ms;
  bool const is_certain = now_ms - *since_ms_ >= kMostWaitMs;
  throw pg::Failure(is_certain ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE : ERRCODE_CANNOT_CONNECT_NOW,
                    "another server follows " + connection.address() + " by this run",
                    "Its link comes from " + *twin + ". One of the two is a copy of the other.",
                    "On the server that is not to follow: SELECT redis_migrate.stop(" +
                        pg::QuoteLiteral(migration_) +
                        "), and remove pg_stat/pgsql_tmp_redis_migrate_instance in the copy.");
}

}  // namespace prm
