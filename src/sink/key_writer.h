// Writes keys to a Redis: as a whole by RESTORE, if the server takes their payloads, otherwise by the
// commands of their types.
//
// The commands write to another name, which is renamed when the value is complete, so that nobody sees a part
// of it and a key that exists is never half of each. That name is the key's with ":redis_migrate:restoring"
// behind it, to which the same key patterns of an ACL apply; in a cluster it has the slot of the key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/status.h"
#include "redis/connection.h"
#include "sink/element_commands.h"
#include "sink/pipeline.h"
#include "source/entry.h"

namespace prm::sink {

enum class KeyFate {
  kRestored,
  kExists,   // and was left as it is
  kExpired,  // its expiry is past: it was not written
  kFailed,
  kElsewhere,  // the server does not serve the key's slot, or not now: it may be tried again
};

struct WrittenKey {
  KeyFate fate = KeyFate::kFailed;
  std::string reason;   // a word to count by; empty: there is nothing to add
  std::string message;  // kFailed, kElsewhere: what the server or the decoder said
};

struct WriterOptions {
  bool replaces = false;                     // keys that exist are overwritten
  bool is_dry = false;                       // nothing is written: what would be
  bool is_cluster = false;                   // of which the server is a node
  size_t bytes_in_flight = size_t{8} << 20;  // of commands without a reply; a larger value goes by itself
};

class KeyWriter {
 public:
  // Asks what the server can do. Nothing may be pending on the connection, which must outlive the writer and
  // is used for nothing else. Errors: those of Connection::Command, unless they say that a command is unknown
  // or forbidden.
  static Result<KeyWriter> Open(redis::Connection& connection, const WriterOptions& options);

  // Writes entries that are kRead, each with its own expiry, to their databases; result[i] is that of
  // entries[i]. now_ms: Unix time. An entry whose payload cannot be decoded fails only if RESTORE does not
  // take it. Errors: those of Connection::Receive; kServerError and kPermissionDenied for what would fail for
  // every key (no memory, a replica that is read-only, no right to a command). What was written before is not
  // told.
  Status Write(const std::vector<const source::Entry*>& entries, int64_t now_ms,
               std::vector<WrittenKey>& result);

  // How many keys were written by commands.
  uint64_t by_commands() const { return by_commands_; }

 private:
  struct Key {
    const source::Entry* entry;
    WrittenKey* result;
    std::string temporary;
    bool is_settled = false;
    bool is_by_commands = false;
    bool is_begun = false;  // something was written to the temporary name
    uint64_t lost = 0;      // pending entries
  };
  class ToPipeline;

  KeyWriter(redis::Connection& connection, const WriterOptions& options)
      : connection_(connection), options_(options) {}

  Status Select(int db, std::vector<Key>& keys);
  Status WriteInDatabase(std::vector<Key>& keys);
  Status AskVersions(std::vector<Key>& keys);
  Status Restore(std::vector<Key>& keys);
  Status AskWhichExist(std::vector<Key>& keys);
  Status WriteParts(std::vector<Key>& keys);
  Status Rename(std::vector<Key>& keys);
  Status RemoveTemporary(const std::vector<Key>& keys);
  Result<bool> TakesVersion(unsigned version, Key& key);
  std::string TemporaryName(Bytes key) const;
  void Settle(Key& key, KeyFate fate, std::string reason = {}, std::string message = {});
  void SettleByError(Key& key, Bytes text, Bytes command);

  redis::Connection& connection_;
  WriterOptions options_;
  CommandAbilities abilities_;
  bool may_restore_ = true;
  std::map<unsigned, bool> versions_;  // of payloads: whether RESTORE takes them
  std::optional<int> selected_;
  std::optional<Error> hopeless_;  // what every key will fail by
  uint64_t by_commands_ = 0;
};

}  // namespace prm::sink
