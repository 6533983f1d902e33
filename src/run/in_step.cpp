#include "run/in_step.h"

#include "connect/server.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "source/named_keys.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// A server that was restarted or replaced counts anew: it is asked again.
constexpr int64 kAskAgainMs = 1000;

}  // namespace

InStep::InStep(std::string migration, Oid owner) : migration_(std::move(migration)), owner_(owner) {
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute("SELECT server::text FROM redis_migrate.migration WHERE migration = $1",
                             {SqlParam::Text(migration_)});
    if (rows.size() > 0) server_ = rows[0].Text(0);
  }
  Spi::Commit();
  AskServer();
}

void InStep::AskServer() {
  ServerConnection connection(server_, owner_);
  Spi::Commit();
  auto const keys = pg::ValueOrThrow(source::NamedKeys::Open(*connection, {}));
  point_ = pg::ValueOrThrow(keys->FetchPoint());
  asked_ms_ = pg::MonotonicMs();
}

// Large values that wait because they change often are wanted at once.
void InStep::HastenUpTo(int64 offset) const {
  Spi::ExecuteKept(
      "UPDATE redis_migrate.live_position AS p SET flush_offset = $2 WHERE p.run_id = (SELECT max(run_id) "
      "FROM "
      "redis_migrate.run WHERE migration = $1 AND live) AND p.flush_offset < $2 AND EXISTS (SELECT FROM "
      "redis_migrate.live_key AS k WHERE k.run_id = p.run_id AND k.bytes IS NOT NULL AND k.read_offset <= "
      "$2)",
      {SqlParam::Text(migration_), SqlParam::Int8(offset)});
}

bool InStep::IsReached() {
  bool is_of_history = false, is_reached = false;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute(
        "SELECT p.is_loaded AND coalesce(l.replication_id = $2, false), p.applied_offset, "
        "(SELECT max(k.read_offset) FROM redis_migrate.live_key AS k WHERE k.run_id = p.run_id), "
        "EXISTS (SELECT FROM redis_migrate.live_key AS k WHERE k.run_id = p.run_id AND k.read_offset <= $3) "
        "FROM redis_migrate.live_position AS p JOIN redis_migrate.live_link AS l USING (run_id) "
        "WHERE p.run_id = (SELECT max(run_id) FROM redis_migrate.run WHERE migration = $1 AND live)",
        {SqlParam::Text(migration_), SqlParam::Text(point_.id), SqlParam::Int8(last_read_.value_or(-1))});
    is_of_history = rows.size() > 0 && rows[0].Bool(0);
    if (is_of_history && rows[0].Int8(1) >= static_cast<int64>(point_.offset)) {
      // Keys show what came after the moment: other keys may not show the same transactions yet. After a
      // fail-over what they have shown may never have happened, but then they are read again.
      HastenUpTo(last_read_.value_or(static_cast<int64>(point_.offset)));
      if (rows[0].IsNull(2))
        is_reached = true;
      else if (last_read_)
        is_reached = rows[0].Int8(1) >= *last_read_ && !rows[0].Bool(3);
      else
        last_read_ = rows[0].Int8(2);
    }
  }
  Spi::Commit();
  if (!is_of_history && pg::MonotonicMs() - asked_ms_ > kAskAgainMs) {
    last_read_.reset();
    AskServer();
  }
  return is_reached;
}

}  // namespace prm
