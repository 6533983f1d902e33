#include "sink/command_abilities.h"

#include "redis/error_words.h"

namespace prm::sink {
namespace {

bool StartsWith(Bytes text, Bytes prefix) { return text.substr(0, prefix.size()) == prefix; }

}  // namespace

bool IsForbiddenCommand(Bytes error) {
  return StartsWith(error, "NOPERM") && error.find("command") != Bytes::npos;
}

bool IsUnknownCommand(Bytes error) { return StartsWith(error, redis::kUnknown); }

Result<CommandAbilities> AskAbilities(redis::Connection& connection) {
  const auto knows = [&](std::initializer_list<Bytes> command) -> Result<bool> {
    const Result<redis::Reply> reply = connection.Command(command);
    if (reply.ok() || reply.error().code == ErrorCode::kMoved) return true;
    const std::string& words = reply.error().detail;
    if (reply.error().code == ErrorCode::kPermissionDenied) return !IsForbiddenCommand(words);
    if (reply.error().code != ErrorCode::kServerError) return reply.error();
    return !IsUnknownCommand(words) && words.find("number of arguments") == std::string::npos;
  };
  CommandAbilities abilities;
  // With what is no number, so that the commands do nothing.
  const Result<bool> fields = knows({"HPEXPIREAT", "", "?", "FIELDS", "1", ""});
  if (!fields.ok()) return fields.error();
  abilities.has_field_expiries = fields.value();
  const Result<bool> counters = knows({"XSETID", "", "1-1", "ENTRIESADDED", "?"});
  if (!counters.ok()) return counters.error();
  abilities.has_stream_counters = counters.value();
  return abilities;
}

}  // namespace prm::sink
