#include "redis/data_watch.h"

#include <charconv>

#include "redis/info.h"
#include "redis/replication_point.h"

namespace prm::redis {

namespace {

// "calls=3,usec=...": the number; 0: no such command was called.
int64_t CallsIn(Bytes statistics) {
  constexpr Bytes kCalls = "calls=";
  int64_t calls = 0;
  if (statistics.substr(0, kCalls.size()) == kCalls)
    std::from_chars(statistics.data() + kCalls.size(), statistics.data() + statistics.size(), calls);
  return calls;
}

}  // namespace

bool IsBusy(const Error& error) {
  return error.code == ErrorCode::kUnavailable && Bytes(error.detail).substr(0, 5) == "BUSY ";
}

Error NotAvailable(const Connection& connection, const std::string& predicate) {
  return {ErrorCode::kUnavailable, "Redis at " + connection.address() + " " + predicate, {}, {}};
}

Result<DataWatch> DataWatch::Begin(Connection& connection) {
  Ask(connection);
  auto state = TakeState(connection);
  if (!state.ok()) return state.error();
  return DataWatch(std::move(state.value()));
}

void DataWatch::Ask(Connection& connection) {
  connection.Append({"INFO"}, kLargeReply);
  connection.Append({"INFO", "commandstats"});
}

Result<DataWatch::State> DataWatch::TakeState(Connection& connection) {
  const auto about = connection.Receive();
  if (!about.ok()) return about.error();
  const auto reply = connection.Receive();
  if (!reply.ok()) return reply.error();
  for (const Reply* answer : {&about.value(), &reply.value()})
    if (answer->IsError()) return connection.ToError(*answer);
  const auto text = about.value().String();
  if (!text) return connection.UnknownReply("INFO");
  const ServerInfo info(*text, connection.gate());
  if (info.loading()) return NotAvailable(connection, "is loading its data");
  if (info.role() == "slave")
    return NotAvailable(connection, "is a replica, which does not tell all changes");
  State state;
  state.run_id = info.run_id();
  if (!IsReplicationId(state.run_id)) {
    return Error{ErrorCode::kUnsupported,
                 "Redis at " + connection.address() + " does not say which process it is",
                 "INFO has no run_id.",
                 {}};
  }
  const ServerInfo statistics(reply.value().String().value_or(""));
  auto calls = [&](const std::string& command) {
    return std::to_string(CallsIn(statistics.Get("cmdstat_" + command))) + " ";
  };
  state.flushed = calls("flushall") + calls("flushdb") + calls("swapdb");
  state.replaced = calls("replicaof") + calls("slaveof") + calls("failover");
  state.infos = CallsIn(statistics.Get("cmdstat_info"));
  return state;
}

Result<bool> DataWatch::Check(Connection& connection) {
  Ask(connection);
  return TakeAnswer(connection);
}

Result<bool> DataWatch::TakeAnswer(Connection& connection) {
  auto now = TakeState(connection);
  if (!now.ok() && IsBusy(now.error())) return false;
  if (!now.ok()) return now.error();
  if (now.value().run_id != state_.run_id) return NotAvailable(connection, "is another process than before");
  // Two INFO of this call and of the one before are counted, if nothing else.
  if (state_.infos > 0 && now.value().infos < state_.infos + 2)
    return NotAvailable(connection, "has forgotten what it has executed, by CONFIG RESETSTAT");
  if (now.value().replaced != state_.replaced)
    return NotAvailable(connection, "has executed REPLICAOF or FAILOVER");
  is_flushed_ = now.value().flushed != state_.flushed;
  if (is_flushed_) return NotAvailable(connection, "has executed FLUSHALL, FLUSHDB or SWAPDB");
  state_ = std::move(now.value());
  return true;
}

}  // namespace prm::redis
