#include "sink/element_commands.h"

#include "rdb/json.h"

namespace prm::sink {

namespace {

// A command with more would hold up other clients of the server.
constexpr size_t kMostArguments = 1000;
constexpr size_t kMostBytes = size_t{256} << 10;

}  // namespace

// Begins a command, or continues it if there is room for so many more arguments of so many bytes.
void ElementCommands::Begin(const char* command, size_t bytes, size_t arguments) {
  const bool fits = command_ == command && piece_.size() + bytes <= kMostBytes &&
                    ends_.size() + arguments <= kMostArguments;
  if (fits) return;
  Pass();
  command_ = command;
}

void ElementCommands::Add(Bytes argument) {
  piece_ += argument;
  ends_.push_back(piece_.size());
}

void ElementCommands::Pass() {
  if (command_ != nullptr && status_.ok()) {
    std::vector<Bytes> arguments = {command_, key_};
    size_t begin = 0;
    for (const size_t end : ends_) {
      arguments.push_back(Bytes(piece_).substr(begin, end - begin));
      begin = end;
    }
    sink_.OnCommand(arguments);
    // A time that is past deletes the field, as it would have done in the source.
    for (const FieldExpiry& expiry : expiries_)
      sink_.OnCommand({"HPEXPIREAT", key_, std::to_string(expiry.at_ms), "FIELDS", "1", expiry.field});
  }
  command_ = nullptr;
  piece_.clear();
  ends_.clear();
  expiries_.clear();
}

void ElementCommands::Refuse(std::string message) {
  if (status_.ok()) status_ = Error{ErrorCode::kUnsupported, std::move(message), {}, {}};
}

void ElementCommands::OnString(Bytes value) {
  if (status_.ok()) sink_.OnCommand({"SET", key_, value});
}

void ElementCommands::OnListElement(Bytes value) {
  Begin("RPUSH", value.size(), 1);
  Add(value);
}

void ElementCommands::OnSetMember(Bytes member) {
  Begin("SADD", member.size(), 1);
  Add(member);
}

void ElementCommands::OnHashField(Bytes field, Bytes value) {
  Begin("HSET", field.size() + value.size(), 2);
  Add(field);
  Add(value);
}

void ElementCommands::OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) {
  if (!abilities_.has_field_expiries) Refuse("the server has no expiries of fields");
  OnHashField(field, value);
  expiries_.push_back({std::string(field), expires_at_ms});
}

void ElementCommands::OnZsetMember(Bytes member, double score) {
  const std::string text = rdb::FormatScore(score);
  Begin("ZADD", member.size() + text.size(), 2);
  Add(text);
  Add(member);
}

void ElementCommands::OnArrayElement(uint64_t, Bytes) { Refuse("only RESTORE writes arrays"); }

void ElementCommands::OnModuleValue(Bytes) { Refuse("only RESTORE writes values of modules"); }

void ElementCommands::OnStreamEntry(rdb::StreamId id, const rdb::StreamFields& fields) {
  ++entries_;
  if (!status_.ok()) return;
  const std::string text = rdb::FormatStreamId(id);
  std::vector<Bytes> arguments = {"XADD", key_, text};
  for (const auto& [field, value] : fields) {
    arguments.push_back(field);
    arguments.push_back(value);
  }
  sink_.OnCommand(arguments);
}

// Redis' own way to make an empty stream: an entry that MAXLEN removes at once; and where no entry was ever
// added, a group that is destroyed again.
void ElementCommands::OnStreamInfo(const rdb::StreamInfo& info) {
  if (!status_.ok()) return;
  const std::string last = rdb::FormatStreamId(info.last_id);
  const bool was_used = info.last_id.ms != 0 || info.last_id.seq != 0;
  if (entries_ == 0 && was_used) {
    sink_.OnCommand({"XADD", key_, "MAXLEN", "0", last, "x", "y"});
  } else if (entries_ == 0) {
    sink_.OnCommand({"XGROUP", "CREATE", key_, "x", "0", "MKSTREAM"});
    sink_.OnCommand({"XGROUP", "DESTROY", key_, "x"});
  }
  if (!was_used) return;
  if (abilities_.has_stream_counters) {
    sink_.OnCommand({"XSETID", key_, last, "ENTRIESADDED", std::to_string(info.entries_added), "MAXDELETEDID",
                     rdb::FormatStreamId(info.max_deleted_id)});
  } else {
    sink_.OnCommand({"XSETID", key_, last});
  }
}

void ElementCommands::OnStreamGroup(const rdb::StreamGroup& group) {
  if (!status_.ok()) return;
  const std::string last = rdb::FormatStreamId(group.last_delivered_id);
  if (abilities_.has_stream_counters && group.entries_read >= 0) {
    sink_.OnCommand(
        {"XGROUP", "CREATE", key_, group.name, last, "ENTRIESREAD", std::to_string(group.entries_read)});
  } else {
    sink_.OnCommand({"XGROUP", "CREATE", key_, group.name, last});
  }
}

void ElementCommands::OnStreamConsumer(const rdb::StreamConsumer& consumer) {
  // The others come to be with their first pending entry, also before Redis 6.2.
  if (status_.ok() && consumer.pending == 0)
    sink_.OnCommand({"XGROUP", "CREATECONSUMER", key_, consumer.group, consumer.name});
}

void ElementCommands::OnStreamPending(const rdb::StreamPending& pending) {
  if (!status_.ok()) return;
  if (!pending.has_consumer) {
    ++lost_;
    return;
  }
  sink_.OnCommand({"XCLAIM", key_, pending.group, pending.consumer, "0", rdb::FormatStreamId(pending.id),
                   "TIME", std::to_string(pending.delivery_time_ms), "RETRYCOUNT",
                   std::to_string(pending.delivery_count), "FORCE", "JUSTID"});
}

Status ElementCommands::Finish() {
  Pass();
  return status_;
}

}  // namespace prm::sink
