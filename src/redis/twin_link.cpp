#include "redis/twin_link.h"

namespace prm::redis {

namespace {

constexpr int kSilentSeconds = 3;

// The value of a field in a line of CLIENT LIST: "id=3 addr=127.0.0.1:60318 … name=x age=8 idle=0 flags=S …".
Bytes FieldOf(Bytes line, Bytes name) {
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    const Bytes field = line.substr(0, end);
    if (field.size() > name.size() && field.substr(0, name.size()) == name && field[name.size()] == '=') {
      return field.substr(name.size() + 1);
    }
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return {};
}

bool IsSilent(Bytes idle) { return idle.size() != 1 || idle[0] < '0' || idle[0] >= '0' + kSilentSeconds; }

}  // namespace

Result<std::optional<std::string>> FindTwinLink(Connection& connection, const std::string& name) {
  const auto is_refusal = [](const Error& error) {
    return error.code == ErrorCode::kPermissionDenied || error.code == ErrorCode::kServerError;
  };
  std::optional<std::string> address;
  const Result<Reply> named = connection.Command({"CLIENT", "SETNAME", name});
  if (!named.ok() && !is_refusal(named.error())) return named.error();
  const Result<Reply> listed = connection.Command({"CLIENT", "LIST", "TYPE", "replica"});
  if (!listed.ok() && !is_refusal(listed.error())) return listed.error();
  if (!listed.ok()) return address;
  Bytes lines = listed.value().String().value_or(Bytes());
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    const Bytes line = lines.substr(0, end);
    if (FieldOf(line, "name") == name && !IsSilent(FieldOf(line, "idle"))) {
      address = connection.gate().Pass(FieldOf(line, "addr"));
    }
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  return address;
}

}  // namespace prm::redis
