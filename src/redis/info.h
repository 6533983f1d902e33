// The reply of INFO.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "core/text_gate.h"
#include "redis/connection.h"

namespace prm::redis {

struct KeyspaceInfo {
  int db = 0;
  uint64_t keys = 0;
  uint64_t expires = 0;  // keys that have an expiry
};

// The sum of what servers say of their keys, cut at 2^60: no server has as many, and what is computed from
// the sum does not overflow.
inline uint64_t AddKeys(uint64_t sum, uint64_t keys) {
  constexpr uint64_t kMostKeys = uint64_t{1} << 60;
  return std::min(sum + std::min(keys, kMostKeys), kMostKeys);
}

// The fields of INFO. Managed services leave fields out, so every lookup may find nothing.
class ServerInfo {
 public:
  // `text`: lines "field:value", separated by CRLF; "# Section" lines and empty ones between them.
  explicit ServerInfo(Bytes text, TextGate gate = {});

  // The raw value of a field, valid as long as this object; empty if the server did not send it. For
  // comparisons, not for display.
  Bytes Get(const std::string& field) const;
  // The value of a field for messages, tables and views.
  std::string Show(const std::string& field) const { return gate_.Pass(Get(field)); }
  // Also nullopt for a number that is negative or above 2^60, which INFO never reports.
  std::optional<int64_t> GetInteger(const std::string& field) const;

  Bytes run_id() const { return Get("run_id"); }  // 40 hex digits, new for each process
  std::string version() const { return Show("redis_version"); }
  Bytes role() const { return Get("role"); }  // master or slave
  bool loading() const { return Get("loading") == "1"; }
  std::optional<int64_t> maxmemory() const { return GetInteger("maxmemory"); }  // bytes; 0: no limit
  // Bytes until Redis begins to evict keys; nullopt if it never does, or does not tell.
  std::optional<int64_t> headroom() const;
  // Keys evicted since the server started.
  std::optional<int64_t> evicted_keys() const { return GetInteger("evicted_keys"); }

  // The databases that have keys, in ascending order.
  std::vector<KeyspaceInfo> Keyspace() const;

 private:
  TextGate gate_;
  std::map<std::string, std::string> fields_;
};

// Runs INFO. Errors: those of Connection::Command, kProtocol.
Result<ServerInfo> FetchInfo(Connection& connection);

}  // namespace prm::redis
