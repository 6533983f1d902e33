#include "redis/info.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace prm::redis {

namespace {

template <typename Number>
std::optional<Number> ParseNumber(Bytes text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// The part before the separator; `rest` keeps what follows it.
Bytes Cut(Bytes& rest, char separator) {
  const size_t at = std::min(rest.find(separator), rest.size());
  const Bytes part = rest.substr(0, at);
  rest.remove_prefix(std::min(at + 1, rest.size()));
  return part;
}

}  // namespace

ServerInfo::ServerInfo(Bytes text, TextGate gate) : gate_(std::move(gate)) {
  while (!text.empty()) {
    Bytes line = Cut(text, '\n');
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    const Bytes field = Cut(line, ':');
    fields_.insert_or_assign(std::string(field), std::string(line));
  }
}

Bytes ServerInfo::Get(const std::string& field) const {
  const auto found = fields_.find(field);
  return found == fields_.end() ? Bytes() : Bytes(found->second);
}

std::optional<int64_t> ServerInfo::GetInteger(const std::string& field) const {
  const auto number = ParseNumber<int64_t>(Get(field));
  return number && *number >= 0 && *number <= int64_t{1} << 60 ? number : std::nullopt;
}

// redis 7.0 src/evict.c, getMaxmemoryState: Redis compares maxmemory with all used memory except the buffers
// of replicas and of the append-only file.
std::optional<int64_t> ServerInfo::headroom() const {
  const std::optional<int64_t> limit = maxmemory();
  const std::optional<int64_t> used = GetInteger("used_memory");
  if (!limit || *limit == 0 || !used || Get("maxmemory_policy") == "noeviction") return {};
  return *limit - (*used - GetInteger("mem_not_counted_for_evict").value_or(0));
}

std::vector<KeyspaceInfo> ServerInfo::Keyspace() const {
  std::vector<KeyspaceInfo> databases;
  for (const auto& [field, value] : fields_) {  // "db0" -> "keys=3,expires=1,avg_ttl=99"
    if (field.compare(0, 2, "db") != 0) continue;
    const std::optional<int> db = ParseNumber<int>(Bytes(field).substr(2));
    if (!db || *db < 0) continue;
    KeyspaceInfo& info = databases.emplace_back(KeyspaceInfo{*db});
    for (Bytes rest = value; !rest.empty();) {
      Bytes item = Cut(rest, ',');
      const Bytes name = Cut(item, '=');
      if (name == "keys") info.keys = ParseNumber<uint64_t>(item).value_or(0);
      if (name == "expires") info.expires = ParseNumber<uint64_t>(item).value_or(0);
    }
  }
  std::sort(databases.begin(), databases.end(), [](const auto& a, const auto& b) { return a.db < b.db; });
  return databases;
}

Result<ServerInfo> FetchInfo(Connection& connection) {
  Result<Reply> reply = connection.Command({"INFO"}, kLargeReply);
  if (!reply.ok()) return reply.error();
  const auto text = reply.value().String();
  if (!text) return connection.UnknownReply("INFO");
  return ServerInfo(*text, connection.gate());
}

}  // namespace prm::redis
