// INFO: a server's words about itself.
#pragma once

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

// The reply of INFO. Services leave fields out, so every lookup may find nothing.
class ServerInfo {
 public:
  // `text`: lines "field:value", separated by CRLF; "# Section" lines and empty ones between them.
  explicit ServerInfo(Bytes text, TextGate gate = {});

  // The value of a field, valid as long as this object; empty when the server did not send it. As the server
  // sends it: for comparisons, not to be shown.
  Bytes Get(const std::string& field) const;
  // The same as messages, tables and views may show it.
  std::string Show(const std::string& field) const { return gate_.Pass(Get(field)); }
  // Nothing as well for a number that is negative or above 2^60: none that INFO tells is.
  std::optional<int64_t> GetInteger(const std::string& field) const;

  Bytes run_id() const { return Get("run_id"); }  // 40 hex digits, new for each process
  std::string version() const { return Show("redis_version"); }
  Bytes role() const { return Get("role"); }  // master or slave
  bool loading() const { return Get("loading") == "1"; }
  std::optional<int64_t> maxmemory() const { return GetInteger("maxmemory"); }  // bytes; 0: no limit
  // Bytes until Redis begins to evict keys; nothing when it never does, or does not tell.
  std::optional<int64_t> headroom() const;
  // Keys that it has evicted since it was started.
  std::optional<int64_t> evicted_keys() const { return GetInteger("evicted_keys"); }

  // The databases that have keys, in ascending order.
  std::vector<KeyspaceInfo> Keyspace() const;

 private:
  TextGate gate_;
  std::map<std::string, std::string> fields_;
};

// Asks with INFO. Errors: those of Connection::Command, kProtocol.
Result<ServerInfo> FetchInfo(Connection& connection);

}  // namespace prm::redis
