#include "source/server_abilities.h"

#include "redis/error_words.h"
#include "source/key_reply.h"

namespace prm::source {

Result<bool> MayUse(redis::Connection& connection, std::initializer_list<Bytes> command) {
  const Result<redis::Reply> reply = connection.Command(command);
  if (reply.ok()) return true;
  if (reply.error().code == ErrorCode::kMoved) return true;
  if (!IsMissingCommand(reply.error())) return reply.error();
  return reply.error().detail.find(redis::kOnKey) != std::string::npos;
}

// If HPEXPIRETIME exists but is forbidden it counts as there: an error is better than a field that loses its
// expiry.
Result<ServerAbilities> FindAbilities(redis::Connection& connection, const redis::ServerInfo* info) {
  ServerAbilities server;
  const Result<bool> pexpiretime = MayUse(connection, {"PEXPIRETIME", ""});
  if (!pexpiretime.ok()) return pexpiretime.error();
  server.has_pexpiretime = pexpiretime.value();
  const Result<redis::Reply> reply = connection.Command({"HPEXPIRETIME", "", "FIELDS", "1", ""});
  if (!reply.ok() && reply.error().code != ErrorCode::kMoved && !IsMissingCommand(reply.error()))
    return reply.error();
  server.has_field_expiries = reply.ok() || reply.error().code != ErrorCode::kServerError ||
                              reply.error().detail.find(redis::kOnKey) != std::string::npos;
  server.valkey = info != nullptr && !info->Get("valkey_version").empty();
  if (!server.has_field_expiries) return server;
  const Result<bool> time = MayUse(connection, {"TIME"});
  if (!time.ok()) return time.error();
  server.has_time = time.value();
  return server;
}

}  // namespace prm::source
