#include "sink/whole_value.h"

#include <cmath>
#include <cstdlib>

namespace prm::sink {
namespace {

// Nothing: no score of Redis.
std::optional<double> ScoreOf(const std::string& text) {
  char* end = nullptr;
  const double score = std::strtod(text.c_str(), &end);
  const bool is_whole = !text.empty() && end == text.c_str() + text.size();
  return is_whole && !std::isnan(score) ? std::optional<double>(score) : std::nullopt;
}

}  // namespace

bool IsComplete(const WholeValue& value) {
  const size_t count = value.elements.size();
  if (value.type == "string") return count == 1;
  if (value.type == "list" || value.type == "set") return true;
  if (value.type == "hash")
    return count % 2 == 0 && (value.field_expiries.empty() || value.field_expiries.size() == count / 2);
  if (value.type != "zset" || count % 2 != 0) return false;
  for (size_t i = 1; i < count; i += 2)
    if (!ScoreOf(value.elements[i])) return false;
  return true;
}

Status WriteWholeValue(Bytes key, const WholeValue& value, const CommandAbilities& abilities,
                       Interrupts& interrupts, CommandSink& sink) {
  ElementCommands commands(key, abilities, sink, interrupts);
  const std::vector<std::string>& elements = value.elements;
  if (value.type != "string") sink.OnCommand({"UNLINK", key});
  if (elements.empty()) return {};
  for (size_t i = 0; i < elements.size(); ++i) {
    commands.CheckInterrupts();
    if (value.type == "string") {
      commands.OnString(elements[i]);
    } else if (value.type == "list") {
      commands.OnListElement(elements[i]);
    } else if (value.type == "set") {
      commands.OnSetMember(elements[i]);
    } else if (value.type == "zset") {
      commands.OnZsetMember(elements[i], *ScoreOf(elements[i + 1]));
      ++i;
    } else {
      const std::optional<int64_t> expiry =
          value.field_expiries.empty() ? std::nullopt : value.field_expiries[i / 2];
      if (expiry)
        commands.OnExpiringHashField(elements[i], elements[i + 1], *expiry);
      else
        commands.OnHashField(elements[i], elements[i + 1]);
      ++i;
    }
  }
  PRM_RETURN_IF_ERROR(commands.Finish());
  if (value.expires_at_ms) sink.OnCommand({"PEXPIREAT", key, std::to_string(*value.expires_at_ms)});
  return {};
}

}  // namespace prm::sink
