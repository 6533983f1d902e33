// Streams in pieces: entries by XRANGE, counters by XINFO STREAM, groups by XINFO GROUPS, XINFO CONSUMERS and
// XPENDING. Exact except for the times of deliveries and of consumers, which these commands return as ages:
// they are computed with Redis' clock and may be off by the milliseconds that the replies took. Not
// available: when a consumer was last active (Redis 7.2), and how many elements were deleted before Redis
// 7.0.
#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rdb/encoder.h"
#include "source/key_reply.h"
#include "source/piece_reader.h"

namespace prm::source {

namespace {

using redis::Connection;
using redis::ReplyView;

// Entries of XPENDING: about 50 bytes each.
constexpr size_t kPendingPage = 10000;

bool ParseId(const ReplyView& reply, rdb::StreamId& id) {
  const Bytes text = reply.String().value_or("");
  const char* const end = text.data() + text.size();
  const auto ms = std::from_chars(text.data(), end, id.ms);
  if (ms.ec != std::errc() || ms.ptr == end || *ms.ptr != '-') return false;
  const auto seq = std::from_chars(ms.ptr + 1, end, id.seq);
  return seq.ec == std::errc() && seq.ptr == end;
}

// The next id. False if there is none.
bool Next(rdb::StreamId& id) {
  if (++id.seq == 0) ++id.ms;
  return id.ms != 0 || id.seq != 0;
}

// Whether a reply is a valid age: milliseconds since a past event.
bool IsAge(std::optional<int64_t> ms) { return ms && *ms >= 0 && *ms <= kLatestExpiryMs; }

std::string Text(const rdb::StreamId& id) { return std::to_string(id.ms) + "-" + std::to_string(id.seq); }

// Reads a reply of XINFO: names and values in turn. A missing name leaves `value` unchanged.
class Properties {
 public:
  explicit Properties(const ReplyView& reply) : reply_(reply) {}

  bool Has(Bytes name) const { return Find(name) != 0; }
  // False if the value has another form.
  bool GetInteger(Bytes name, int64_t& value) const {
    const size_t at = Find(name);
    if (at == 0 || reply_.element(at).IsNil()) return true;
    const auto number = reply_.element(at).Integer();
    value = number.value_or(value);
    return number.has_value();
  }
  bool GetCount(Bytes name, uint64_t& value) const {
    auto number = static_cast<int64_t>(value);
    if (!GetInteger(name, number) || number < 0) return false;
    value = static_cast<uint64_t>(number);
    return true;
  }
  bool GetId(Bytes name, rdb::StreamId& id) const {
    const size_t at = Find(name);
    return at == 0 || ParseId(reply_.element(at), id);
  }
  bool GetString(Bytes name, std::string& value) const {
    const size_t at = Find(name);
    const auto text = reply_.element(at).String();
    value = text.value_or("");
    return at != 0 && text.has_value();
  }

 private:
  size_t Find(Bytes name) const {
    for (size_t i = 0; i + 1 < reply_.size(); i += 2)
      if (reply_.element(i).String() == name) return i + 1;
    return 0;
  }

  ReplyView reply_;
};

class StreamReader : public PieceReader {
 public:
  StreamReader(Entry& entry, uint64_t memory, const PieceLimits& limits)
      : PieceReader(entry, limits), count_(limits.piece_bytes, memory) {}

  void AskPiece(Connection& connection) override {
    switch (step_) {
      case Step::kEntries:
        asked_entries_ = count_.elements();
        connection.Append(
            {"XRANGE", entry_.key, Text(next_entry_), "+", "COUNT", std::to_string(asked_entries_)},
            PieceLimit());
        break;
      case Step::kCounters:
        connection.Append({"XINFO", "STREAM", entry_.key}, PieceLimit());
        connection.Append({"XINFO", "GROUPS", entry_.key}, PieceLimit());
        break;
      case Step::kGroups:
        connection.Append({"TIME"});
        if (!has_consumers_)
          connection.Append({"XINFO", "CONSUMERS", entry_.key, group().name}, PieceLimit());
        connection.Append(
            {"XPENDING", entry_.key, group().name, Text(next_pending_), "+", std::to_string(kPendingPage)},
            PieceLimit());
        break;
    }
  }

  Status TakePiece(Connection& connection) override {
    switch (step_) {
      case Step::kEntries:
        return TakeEntries(connection);
      case Step::kCounters:
        return TakeCounters(connection);
      case Step::kGroups:
        break;
    }
    return TakeGroup(connection);
  }

  Status Finish() override {
    entry_.payload = encoder_.Finish(info_, groups_, has_counters_);
    entry_.large.reset();
    return {};
  }

  size_t size() const override { return encoder_.size() + group_bytes_; }

 private:
  enum class Step { kEntries, kCounters, kGroups };

  rdb::StreamGroupState& group() { return groups_[group_index_]; }

  Status TakeEntries(Connection& connection) {
    const Result<redis::Reply> reply = Receive(connection);
    if (!reply.ok()) return reply.error();
    if (state() != State::kReading) return {};
    if (!reply.value().IsArray()) return connection.UnknownReply("XRANGE");
    const size_t size_before = encoder_.size();
    rdb::StreamFields fields;
    for (size_t i = 0; i < reply.value().size(); ++i) {
      const ReplyView entry = reply.value().element(i);
      if (entry.size() != 2 || !ParseId(entry.element(0), next_entry_) || entry.element(1).size() % 2 != 0) {
        return connection.UnknownReply("XRANGE");
      }
      fields.clear();
      for (size_t j = 0; j < entry.element(1).size(); j += 2) {
        const auto field = entry.element(1).element(j).String();
        const auto value = entry.element(1).element(j + 1).String();
        if (!field || !value) return connection.UnknownReply("XRANGE");
        fields.emplace_back(*field, *value);
      }
      encoder_.AddEntry(next_entry_, fields);
    }
    count_.Note(reply.value().size(), encoder_.size() - size_before);
    if (encoder_.size() > limits_.max_value_bytes) {
      SetState(State::kTooLarge);
    } else if (reply.value().size() < asked_entries_ || !Next(next_entry_)) {
      step_ = Step::kCounters;
    }
    return {};
  }

  Status TakeCounters(Connection& connection) {
    const Result<redis::Reply> counters = Receive(connection);
    if (!counters.ok()) return counters.error();
    if (state() != State::kReading) return {};
    const Properties properties(counters.value());
    has_counters_ = properties.Has("entries-added");
    if (!properties.GetCount("length", info_.length) ||
        !properties.GetId("last-generated-id", info_.last_id) ||
        !properties.GetId("recorded-first-entry-id", info_.first_id) ||
        !properties.GetId("max-deleted-entry-id", info_.max_deleted_id) ||
        !properties.GetCount("entries-added", info_.entries_added)) {
      return connection.UnknownReply("XINFO");
    }
    const Result<redis::Reply> groups = Receive(connection);
    if (!groups.ok()) return groups.error();
    if (state() != State::kReading) return {};
    for (size_t i = 0; i < groups.value().size(); ++i) {
      const Properties group(groups.value().element(i));
      rdb::StreamGroupState& state = groups_.emplace_back();
      if (!group.GetString("name", state.name) ||
          !group.GetId("last-delivered-id", state.last_delivered_id) ||
          !group.GetInteger("entries-read", state.entries_read)) {
        return connection.UnknownReply("XINFO");
      }
      group_bytes_ += sizeof(state) + state.name.size();
    }
    step_ = Step::kGroups;
    if (info_.length != encoder_.count()) {
      SetState(State::kChanged);
    } else if (groups_.empty()) {
      SetState(State::kDone);
    }
    return {};
  }

  Status TakeGroup(Connection& connection) {
    const Result<redis::Reply> time = Receive(connection);
    if (!time.ok()) return time.error();
    const Result<int64_t> now = ParseTime(connection, time.value());
    if (!now.ok()) return now.error();
    if (!has_consumers_) PRM_RETURN_IF_ERROR(TakeConsumers(connection, now.value()));
    if (state() != State::kReading) return {};
    const Result<redis::Reply> reply = Receive(connection);
    if (!reply.ok()) return reply.error();
    if (state() != State::kReading) return {};
    if (!reply.value().IsArray()) return connection.UnknownReply("XPENDING");
    for (size_t i = 0; i < reply.value().size(); ++i) {
      const ReplyView entry = reply.value().element(i);
      const auto consumer = entry.element(1).String();
      const auto idle = entry.element(2).Integer();
      const auto deliveries = entry.element(3).Integer();
      if (entry.size() != 4 || !ParseId(entry.element(0), next_pending_) || !consumer || !IsAge(idle) ||
          deliveries.value_or(-1) < 0) {
        return connection.UnknownReply("XPENDING");
      }
      group().pending.push_back(
          {next_pending_, std::string(*consumer), now.value() - *idle, static_cast<uint64_t>(*deliveries)});
      group_bytes_ += sizeof(group().pending.back()) + consumer->size();
    }
    if (size() > limits_.max_value_bytes) {
      SetState(State::kTooLarge);
      return {};
    }
    if (reply.value().size() == kPendingPage && Next(next_pending_)) return {};
    if (!EveryConsumerIsKnown()) {
      SetState(State::kChanged);
      return {};
    }
    has_consumers_ = false;
    next_pending_ = {};
    if (++group_index_ == groups_.size()) SetState(State::kDone);
    return {};
  }

  Status TakeConsumers(Connection& connection, int64_t now) {
    const Result<redis::Reply> reply = Receive(connection);
    if (!reply.ok()) return reply.error();
    if (state() != State::kReading) return {};
    for (size_t i = 0; i < reply.value().size(); ++i) {
      const Properties consumer(reply.value().element(i));
      rdb::StreamGroupState::Consumer& known = group().consumers.emplace_back();
      int64_t idle = 0;
      if (!consumer.GetString("name", known.name) || !consumer.GetInteger("idle", idle) || !IsAge(idle)) {
        return connection.UnknownReply("XINFO");
      }
      group_bytes_ += sizeof(known) + known.name.size();
      known.seen_time_ms = now - idle;
    }
    has_consumers_ = true;
    return {};
  }

  // XPENDING came after XINFO CONSUMERS: a consumer may be new.
  bool EveryConsumerIsKnown() {
    std::vector<std::string> names;
    for (const auto& consumer : group().consumers) names.push_back(consumer.name);
    std::sort(names.begin(), names.end());
    return std::all_of(group().pending.begin(), group().pending.end(), [&](const auto& pending) {
      return std::binary_search(names.begin(), names.end(), pending.consumer);
    });
  }

  PieceCount count_;
  rdb::StreamEncoder encoder_;
  rdb::StreamInfo info_;
  std::vector<rdb::StreamGroupState> groups_;
  size_t group_bytes_ = 0;  // that groups_ takes
  bool has_counters_ = false;
  Step step_ = Step::kEntries;
  uint64_t asked_entries_ = 0;
  rdb::StreamId next_entry_;  // while entries are taken, the last one
  size_t group_index_ = 0;
  bool has_consumers_ = false;  // of the group
  rdb::StreamId next_pending_;
};

}  // namespace

std::unique_ptr<PieceReader> MakeStreamReader(Entry& entry, uint64_t memory, const PieceLimits& limits) {
  return std::make_unique<StreamReader>(entry, memory, limits);
}

}  // namespace prm::source
