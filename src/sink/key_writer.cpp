#include "sink/key_writer.h"

#include <algorithm>
#include <utility>

#include "rdb/dump.h"
#include "redis/cluster_slots.h"
#include "sink/command_abilities.h"
#include "source/server_abilities.h"

namespace prm::sink {

namespace {

constexpr char kSuffix[] = ":redis_migrate:restoring";
// How long a part of a value stays if nobody comes back.
constexpr char kGuardMs[] = "3600000";

bool StartsWith(Bytes text, Bytes prefix) { return text.substr(0, prefix.size()) == prefix; }

// Errors that do not depend on the key.
bool IsHopeless(Bytes text) {
  for (const Bytes word : {"OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOAUTH"})
    if (text.substr(0, text.find(' ')) == word) return true;
  return false;
}

// The first word of an error reply, in lower case: nobody else's bytes.
std::string ReasonOf(Bytes text) {
  std::string word;
  for (const char c : text.substr(0, text.find(' '))) {
    if (c < 'A' || c > 'Z' || word.size() == 20) return "server_error";
    word += static_cast<char>(c - 'A' + 'a');
  }
  return word.empty() || word == "err" ? "server_error" : word;
}

// A payload of that version whose type no version has: a server that takes the version says "Bad data
// format".
std::string ProbeOf(unsigned version) {
  std::string payload(1, '\xff');
  rdb::AppendDumpTrailer(version, payload);
  return payload;
}

// Decodes a value and keeps nothing of it.
class Nowhere : public CommandSink {
 public:
  void OnCommand(const std::vector<Bytes>&) override {}
};

}  // namespace

// Sends the commands of one key.
class KeyWriter::ToPipeline : public CommandSink {
 public:
  ToPipeline(Pipeline& pipeline, Key& key, size_t tag) : pipeline_(pipeline), key_(key), tag_(tag) {}
  void OnCommand(const std::vector<Bytes>& arguments) override {
    if (!status_.ok() || key_.is_settled) return;
    status_ = pipeline_.Send(arguments, tag_);
    if (!status_.ok() || key_.is_begun) return;
    key_.is_begun = true;
    status_ = pipeline_.Send({"PEXPIRE", key_.temporary, kGuardMs}, tag_);
  }
  const Status& status() const { return status_; }

 private:
  Pipeline& pipeline_;
  Key& key_;
  size_t tag_;
  Status status_;
};

Result<KeyWriter> KeyWriter::Open(redis::Connection& connection, const WriterOptions& options) {
  KeyWriter writer(connection, options);
  const Result<CommandAbilities> abilities = AskAbilities(connection);
  if (!abilities.ok()) return abilities.error();
  writer.abilities_ = abilities.value();
  return writer;
}

void KeyWriter::Settle(Key& key, KeyFate fate, std::string reason, std::string message) {
  if (key.is_settled) return;
  key.is_settled = true;
  *key.result = {fate, std::move(reason), std::move(message)};
}

void KeyWriter::SettleByError(Key& key, Bytes text, Bytes command) {
  const Error error = connection_.ToError(text, command);
  if (error.code == ErrorCode::kMoved || error.code == ErrorCode::kUnavailable) {
    Settle(key, KeyFate::kElsewhere, ReasonOf(text), error.message + ": " + error.detail);
    return;
  }
  if (!hopeless_ && (IsHopeless(text) || IsForbiddenCommand(text))) hopeless_ = error;
  Settle(key, KeyFate::kFailed, ReasonOf(text), error.message + ": " + error.detail);
}

Status KeyWriter::Write(const std::vector<const source::Entry*>& entries, int64_t now_ms,
                        std::vector<WrittenKey>& result) {
  result.assign(entries.size(), {});
  std::map<int, std::vector<Key>> by_database;
  for (size_t i = 0; i < entries.size(); ++i) {
    Key key = {entries[i], &result[i], TemporaryName(entries[i]->key)};
    if (entries[i]->expires_at_ms && *entries[i]->expires_at_ms <= now_ms)
      Settle(key, KeyFate::kExpired);
    else
      by_database[entries[i]->db].push_back(std::move(key));
  }
  for (auto& [db, keys] : by_database) {
    PRM_RETURN_IF_ERROR(Select(db, keys));
    PRM_RETURN_IF_ERROR(WriteInDatabase(keys));
    if (hopeless_) return *hopeless_;
  }
  return {};
}

// Settles the keys where there is no such database.
Status KeyWriter::Select(int db, std::vector<Key>& keys) {
  if (selected_.value_or(-1) == db || (options_.is_cluster && db == 0)) return {};
  std::string message = "a cluster has database 0 only";
  if (!options_.is_cluster) {
    const Result<redis::Reply> reply = connection_.Command({"SELECT", std::to_string(db)});
    if (reply.ok()) {
      selected_ = db;
      return {};
    }
    if (reply.error().code != ErrorCode::kServerError) return reply.error();
    message = reply.error().message + ": " + reply.error().detail;
  }
  for (Key& key : keys) Settle(key, KeyFate::kFailed, "no_such_database", message);
  return {};
}

Status KeyWriter::WriteInDatabase(std::vector<Key>& keys) {
  if (!options_.replaces || options_.is_dry) PRM_RETURN_IF_ERROR(AskWhichExist(keys));
  PRM_RETURN_IF_ERROR(AskVersions(keys));
  if (!options_.is_dry) PRM_RETURN_IF_ERROR(Restore(keys));
  PRM_RETURN_IF_ERROR(WriteParts(keys));
  const Status renamed = hopeless_ || options_.is_dry ? Status() : Rename(keys);
  if (!renamed.ok() || options_.is_dry) return renamed;
  return RemoveTemporary(keys);
}

Status KeyWriter::AskWhichExist(std::vector<Key>& keys) {
  Pipeline pipeline(connection_, options_.bytes_in_flight, [&](size_t i, const redis::Reply& reply) {
    if (reply.IsError())
      SettleByError(keys[i], reply.ErrorText(), "EXISTS");
    else if (reply.Integer().value_or(0) > 0 && !options_.replaces)
      Settle(keys[i], KeyFate::kExists);
  });
  for (size_t i = 0; i < keys.size(); ++i)
    if (!keys[i].is_settled) PRM_RETURN_IF_ERROR(pipeline.Send({"EXISTS", keys[i].entry->key}, i));
  return pipeline.Drain();
}

// Decides which keys go by commands.
Status KeyWriter::AskVersions(std::vector<Key>& keys) {
  for (Key& key : keys) {
    if (key.is_settled || !may_restore_) {
      key.is_by_commands = true;
      continue;
    }
    const std::optional<unsigned> version =
        key.entry->plain ? std::nullopt : rdb::DumpVersion(key.entry->payload);
    // A short string is encoded in the oldest version; what has no version, RESTORE will not take.
    if (!version) {
      key.is_by_commands = true;
      continue;
    }
    const Result<bool> takes = TakesVersion(*version, key);
    if (!takes.ok()) return takes.error();
    key.is_by_commands = !takes.value();
  }
  return {};
}

// Asks with the name of a key that is to be written: the server serves it, and the user may write it.
Result<bool> KeyWriter::TakesVersion(unsigned version, Key& key) {
  const auto known = versions_.find(version);
  if (known != versions_.end()) return known->second;
  connection_.Append({"RESTORE", key.temporary, "0", ProbeOf(version)});
  const Result<redis::Reply> reply = connection_.Receive();
  if (!reply.ok()) return reply.error();
  const Bytes text = reply.value().ErrorText();
  if (IsForbiddenCommand(text) || IsUnknownCommand(text)) {
    may_restore_ = false;
    return false;
  }
  if (StartsWith(text, "BUSYKEY")) return false;  // what an earlier attempt has left
  const ErrorCode code = connection_.ToError(text, "RESTORE").code;
  if (code != ErrorCode::kServerError || IsHopeless(text)) {
    SettleByError(key, text, "RESTORE");
    return false;
  }
  return versions_[version] = text.find("version or checksum") == Bytes::npos;
}

Status KeyWriter::Restore(std::vector<Key>& keys) {
  Pipeline pipeline(connection_, options_.bytes_in_flight, [&](size_t i, const redis::Reply& reply) {
    Key& key = keys[i];
    const Bytes text = reply.ErrorText();
    if (!reply.IsError()) {
      Settle(key, KeyFate::kRestored);
    } else if (StartsWith(text, "BUSYKEY")) {
      Settle(key, KeyFate::kExists);
    } else if (IsForbiddenCommand(text) || StartsWith(text, "ERR ") || IsUnknownCommand(text)) {
      key.is_by_commands = true;  // a type or an encoding that the server does not know
    } else {
      SettleByError(key, text, "RESTORE");
    }
  });
  for (size_t i = 0; i < keys.size() && !hopeless_; ++i) {
    const Key& key = keys[i];
    if (key.is_settled || key.is_by_commands) continue;
    const std::string expiry = std::to_string(key.entry->expires_at_ms.value_or(0));
    std::vector<Bytes> arguments = {"RESTORE", key.entry->key, expiry, key.entry->payload};
    if (key.entry->expires_at_ms) arguments.emplace_back("ABSTTL");
    if (options_.replaces) arguments.emplace_back("REPLACE");
    PRM_RETURN_IF_ERROR(pipeline.Send(arguments, i));
  }
  return pipeline.Drain();
}

Status KeyWriter::WriteParts(std::vector<Key>& keys) {
  Pipeline pipeline(connection_, options_.bytes_in_flight, [&](size_t i, const redis::Reply& reply) {
    if (reply.IsError())
      SettleByError(keys[i], reply.ErrorText(), "a command of the value");
    else if (reply.IsArray() && reply.size() == 0)
      ++keys[i].lost;  // of XCLAIM: the stream has the entry no more
  });
  Nowhere nowhere;
  for (size_t i = 0; i < keys.size() && !hopeless_; ++i) {
    Key& key = keys[i];
    if (key.is_settled || (options_.is_dry && !key.is_by_commands)) continue;
    if (!options_.is_dry) PRM_RETURN_IF_ERROR(pipeline.Send({"DEL", key.temporary}, i));
    ToPipeline to_pipeline(pipeline, key, i);
    CommandSink& sink = options_.is_dry ? static_cast<CommandSink&>(nowhere) : to_pipeline;
    ElementCommands commands(key.temporary, abilities_, sink, connection_.waiter());
    const Status decoded = source::Decode(*key.entry, commands);
    const Status finished = commands.Finish();
    PRM_RETURN_IF_ERROR(to_pipeline.status());
    key.lost += commands.lost();
    const Status& status = decoded.ok() ? finished : decoded;
    if (!status.ok()) {
      const bool is_unknown = status.error().code == ErrorCode::kUnsupported;
      Settle(key, KeyFate::kFailed, is_unknown ? "unsupported_payload" : "corrupt_payload",
             status.error().message);
    }
  }
  PRM_RETURN_IF_ERROR(pipeline.Drain());
  if (options_.is_dry)
    for (Key& key : keys) Settle(key, KeyFate::kRestored);
  return {};
}

Status KeyWriter::Rename(std::vector<Key>& keys) {
  // Two commands for a key: only the last one settles it, or an error.
  const size_t count = keys.size();
  Pipeline pipeline(connection_, options_.bytes_in_flight, [&](size_t tag, const redis::Reply& reply) {
    Key& key = keys[tag % count];
    if (reply.IsError()) {
      // All its fields have expired.
      if (reply.ErrorText().find("no such key") != Bytes::npos)
        Settle(key, KeyFate::kExpired);
      else
        SettleByError(key, reply.ErrorText(), "RENAME");
    } else if (tag >= count) {
      if (!options_.replaces && !reply.IsInteger()) {
        hopeless_ = connection_.UnknownReply("RENAMENX");
        Settle(key, KeyFate::kFailed, "server_error", hopeless_->message);
      } else if (reply.Integer().value_or(1) == 0) {
        Settle(key, KeyFate::kExists);
      } else {
        key.is_begun = false;
        ++by_commands_;
        Settle(key, KeyFate::kRestored, key.lost > 0 ? "without_pending" : "");
      }
    }
  });
  for (size_t i = 0; i < count; ++i) {
    Key& key = keys[i];
    if (key.is_settled) continue;
    if (key.entry->expires_at_ms)
      PRM_RETURN_IF_ERROR(
          pipeline.Send({"PEXPIREAT", key.temporary, std::to_string(*key.entry->expires_at_ms)}, i));
    else
      PRM_RETURN_IF_ERROR(pipeline.Send({"PERSIST", key.temporary}, i));
    PRM_RETURN_IF_ERROR(
        pipeline.Send({options_.replaces ? "RENAME" : "RENAMENX", key.temporary, key.entry->key}, count + i));
  }
  return pipeline.Drain();
}

Status KeyWriter::RemoveTemporary(const std::vector<Key>& keys) {
  Pipeline pipeline(connection_, options_.bytes_in_flight, [](size_t, const redis::Reply&) {});
  for (const Key& key : keys)
    if (key.is_begun) PRM_RETURN_IF_ERROR(pipeline.Send({"DEL", key.temporary}, 0));
  return pipeline.Drain();
}

std::string KeyWriter::TemporaryName(Bytes key) const {
  std::string name = std::string(key) + kSuffix;
  if (!options_.is_cluster) return name;
  const size_t slot = redis::KeySlot(key);
  if (redis::KeySlot(name) == slot) return name;
  std::string tagged = name + "{" + std::string(key) + "}";
  // A key with braces that enclose no tag: one of some ten thousand numbers has its slot.
  for (size_t i = 0; redis::KeySlot(tagged) != slot; ++i) tagged = name + std::to_string(i);
  return tagged;
}

}  // namespace prm::sink
