#include "source/named_keys.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <limits>
#include <tuple>
#include <utility>

#include "core/printable.h"
#include "rdb/dump.h"
#include "redis/cluster_slots.h"
#include "redis/error_words.h"
#include "redis/info.h"

namespace prm::source {

namespace {

using redis::ReplicationPoint;
using redis::Reply;
using redis::ReplyView;

constexpr uint64_t kPieceBytes = uint64_t{1} << 20;
// So many keys are asked for their sizes before the first value: the answers are small.
constexpr size_t kMostSizes = 2000;

// Others wait for one or two turns (Connection::EndTurn). A turn has so many sizes, about 100 us of the
// server's time, or one MULTI. Its values take a tenth of the bytes that it has room for.
constexpr size_t kTurns = 2;
constexpr size_t kSizesInTurn = 40;
constexpr uint64_t kTurnsOfBytes = 10;
// Over a slow network as many more are under way as keep the server at work.
constexpr std::chrono::microseconds kTurn{100};

// The reply of EXEC has more than the values: a text of INFO, and for each key two elements.
constexpr uint64_t kInfoBytes = uint64_t{64} << 10;
constexpr uint64_t kBytesPerKey = 2 * redis::kElementBytes + 64;

}  // namespace

NamedKeys::NamedKeys(redis::Connection& connection, const NamedKeysOptions& options,
                     const ServerAbilities& server)
    : connection_(connection),
      options_(options),
      server_(server),
      values_(connection, server, std::min(kPieceBytes, options.max_reply_bytes), options.max_value_bytes,
              options.make_spool),
      meter_(connection, options.budget) {}

Result<std::unique_ptr<NamedKeys>> NamedKeys::Open(redis::Connection& connection,
                                                   const NamedKeysOptions& options) {
  const auto info = redis::FetchInfo(connection);
  if (!info.ok()) return info.error();
  if (options.has_points && !redis::IsReplicationId(info.value().Get("master_replid"))) {
    return Error{ErrorCode::kUnsupported,
                 "Redis at " + connection.address() + " does not tell how far its replication stream is",
                 "INFO has no master_replid, which servers have from Redis 4.0 on.",
                 {}};
  }
  // EXEC first, which is an error there: without the right to it there is no way out of MULTI.
  const auto alone = connection.Command({"EXEC"});
  if (!alone.ok() && alone.error().detail.find(redis::kWithoutMulti) == std::string::npos)
    return alone.error();
  auto round_trip = std::chrono::steady_clock::duration::max();
  for (const char* command : {"MULTI", "EXEC"}) {
    const auto asked = std::chrono::steady_clock::now();
    const auto answered = connection.Command({command});
    if (!answered.ok()) return answered.error();
    round_trip = std::min(round_trip, std::chrono::steady_clock::now() - asked);
  }
  connection.AllowTurns(kTurns + static_cast<size_t>(round_trip / kTurn));
  // Where it is missing, reading makes keys look recently used.
  const auto no_touch = MayUse(connection, {"CLIENT", "NO-TOUCH", "ON"});
  if (!no_touch.ok()) return no_touch.error();
  const auto server = FindAbilities(connection, &info.value());
  if (!server.ok()) return server.error();
  std::unique_ptr<NamedKeys> keys(new NamedKeys(connection, options, server.value()));
  keys->run_id_ = info.value().run_id();
  const auto dump = MayUse(connection, {"DUMP", ""});
  if (!dump.ok()) return dump.error();
  keys->has_dump_ = dump.value();
  const auto usage = MayUse(connection, {"MEMORY", "USAGE", ""});
  if (!usage.ok()) return usage.error();
  keys->has_memory_usage_ = usage.value();
  PRM_RETURN_IF_ERROR(keys->meter_.Open());
  return keys;
}

std::optional<NamedKeys::Moment> NamedKeys::MomentIn(Bytes info) const {
  const redis::ServerInfo fields(info);
  const bool is_replica = fields.role() != "master";
  if (!options_.has_points) return Moment{{run_id_, 0}, is_replica};
  const Bytes id = fields.Get("master_replid");
  const auto offset = fields.GetInteger("master_repl_offset");
  if (!redis::IsReplicationId(id) || !offset || *offset < 0) return std::nullopt;
  return Moment{{std::string(id), static_cast<uint64_t>(*offset)}, is_replica};
}

Result<NamedKeys::Moment> NamedKeys::FetchMoment() {
  const auto info = connection_.Command({"INFO", "replication"});
  if (!info.ok()) return info.error();
  const auto moment = MomentIn(info.value().String().value_or(""));
  if (!moment) return connection_.UnknownReply("INFO");
  return *moment;
}

Result<ReplicationPoint> NamedKeys::FetchPoint() {
  const auto moment = FetchMoment();
  if (!moment.ok()) return moment.error();
  return moment.value().point;
}

Result<bool> NamedKeys::Check(redis::DataWatch& data) {
  meter_.AskBefore();
  redis::DataWatch::Ask(connection_);
  meter_.AskAfter();
  // All answers are taken, whatever they are: the connection serves on.
  const Status before = meter_.TakeBefore();
  auto is_same = data.TakeAnswer(connection_);
  const Status after = meter_.TakeAfter(0);
  PRM_RETURN_IF_ERROR(before);
  if (is_same.ok()) PRM_RETURN_IF_ERROR(after);
  return is_same;
}

Status NamedKeys::Read(std::vector<NamedKey>& keys) {
  PRM_RETURN_IF_ERROR(meter_.Ping());
  admitted_ = 0;
  admitted_bytes_ = 0;
  no_memory_ = false;
  Group all;
  for (NamedKey& key : keys) all.push_back(&key);
  const auto place = [this](const NamedKey* key) {
    return std::tuple(key->entry.db, SlotOf(*key), key->together);
  };
  std::stable_sort(all.begin(), all.end(),
                   [&](const NamedKey* a, const NamedKey* b) { return place(a) < place(b); });
  for (auto from = all.begin(); from != all.end();) {
    const int db = (*from)->entry.db;
    const auto is_other = [db](const NamedKey* key) { return key->entry.db != db; };
    auto to = std::find_if(from, all.end(), is_other);
    if (static_cast<size_t>(to - from) > kMostSizes) to = from + static_cast<std::ptrdiff_t>(kMostSizes);
    PRM_RETURN_IF_ERROR(Select(db));
    PRM_RETURN_IF_ERROR(ReadInDatabase(Group(from, to)));
    from = to;
  }
  return {};
}

size_t NamedKeys::SlotOf(const NamedKey& key) const {
  return options_.is_cluster ? redis::KeySlot(key.entry.key) : 0;
}

Status NamedKeys::Select(int db) {
  if (selected_ == db) return {};
  const auto selected = connection_.Command({"SELECT", std::to_string(db)});
  if (!selected.ok()) return selected.error();
  selected_ = db;
  return {};
}

// Reads at most kMostSizes keys of the selected database.
Status NamedKeys::ReadInDatabase(const Group& keys) {
  std::vector<uint64_t> sizes(keys.size());
  PRM_RETURN_IF_ERROR(AskSizes(keys, sizes));
  std::deque<Question> asked;
  uint64_t bytes_under_way = 0;
  Question next;
  Group again;
  Group in_pieces;
  const auto receive = [&]() -> Status {
    bytes_under_way -= asked.front().bytes;
    PRM_RETURN_IF_ERROR(ReceiveAtOnce(asked.front().keys, again, in_pieces));
    asked.pop_front();
    return {};
  };
  const auto ask = [&]() -> Status {
    while (!asked.empty() && bytes_under_way + next.bytes > options_.bytes_under_way)
      PRM_RETURN_IF_ERROR(receive());
    AskAtOnce(next.keys);
    connection_.Flush();
    bytes_under_way += next.bytes;
    asked.push_back(std::exchange(next, {}));
    return {};
  };
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i]->is_left = !Admit(sizes[i]);
    if (keys[i]->is_left) continue;
    if (!has_dump_ || sizes[i] > options_.max_reply_bytes) {
      in_pieces.push_back(keys[i]);
      continue;
    }
    if (!next.keys.empty() && IsFull(next, keys, sizes, i)) PRM_RETURN_IF_ERROR(ask());
    next.keys.push_back(keys[i]);
    next.bytes += sizes[i];
  }
  if (!next.keys.empty()) PRM_RETURN_IF_ERROR(ask());
  while (!asked.empty()) PRM_RETURN_IF_ERROR(receive());
  for (NamedKey* key : again) {
    AskAtOnce({key});
    Group too_large;
    PRM_RETURN_IF_ERROR(ReceiveAtOnce({key}, too_large, in_pieces));
    in_pieces.insert(in_pieces.end(), too_large.begin(), too_large.end());
  }
  return in_pieces.empty() ? Status() : ReadInPieces(in_pieces);
}

// Whether one more value is not too much for a call of Read.
bool NamedKeys::Admit(uint64_t size) {
  const bool is_bounded = options_.bytes_in_all != UINT64_MAX;
  const bool is_too_much = is_bounded && (admitted_bytes_ + size > options_.bytes_in_all ||
                                          (!has_memory_usage_ && admitted_ >= options_.keys_at_once));
  if (admitted_ > 0 && is_too_much) return false;
  ++admitted_;
  admitted_bytes_ += size;
  return true;
}

// Whether the next of the keys is to be asked for in another MULTI: what belongs together may take as much as
// one has room for, and goes into another turn than what it does not belong to.
bool NamedKeys::IsFull(const Question& question, const Group& keys, const std::vector<uint64_t>& sizes,
                       size_t next) const {
  const NamedKey& last = *question.keys.back();
  if (SlotOf(*keys[next]) != SlotOf(last)) return true;
  size_t most_keys = options_.keys_at_once;
  const auto is_more = [&](size_t count, uint64_t bytes, uint64_t most_bytes) {
    return question.keys.size() + count > most_keys || question.bytes + bytes > most_bytes;
  };
  const RereadBudget* const budget = options_.budget;
  const uint64_t together = keys[next]->together;
  if (together != 0 && last.together == together) {
    if (budget != nullptr) most_keys = std::min(most_keys, budget->KeysAtOnce());
    return is_more(1, sizes[next], options_.bytes_at_once);
  }
  size_t count = 1;
  uint64_t bytes = sizes[next];
  for (size_t at = next + 1; together != 0 && at < keys.size() && keys[at]->together == together; ++at) {
    ++count;
    bytes += sizes[at];
  }
  if (budget != nullptr) most_keys = std::min(most_keys, budget->KeysInTurn());
  return is_more(count, bytes, options_.bytes_at_once / kTurnsOfBytes);
}

// The replies of MEMORY USAGE; 0 where a key is missing, or may not be asked for.
Status NamedKeys::AskSizes(const Group& keys, std::vector<uint64_t>& sizes) {
  if (!has_memory_usage_) return {};
  const auto begins_turn = [](size_t i) { return i % kSizesInTurn == 0; };
  const auto ends_turn = [&](size_t i) { return i + 1 == keys.size() || begins_turn(i + 1); };
  for (size_t i = 0; i < keys.size(); ++i) {
    if (begins_turn(i)) meter_.AskBefore();
    connection_.Append({"MEMORY", "USAGE", keys[i]->entry.key});
    if (!ends_turn(i)) continue;
    meter_.AskAfter();
    connection_.EndTurn();
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    if (begins_turn(i)) PRM_RETURN_IF_ERROR(meter_.TakeBefore());
    const auto reply = connection_.Receive();
    if (!reply.ok()) return reply.error();
    if (reply.value().IsError()) return ForKey(connection_.ToError(reply.value()), keys[i]->entry);
    const auto size = reply.value().Integer();
    if ((!size || *size < 0) && !reply.value().IsNil()) return connection_.UnknownReply("MEMORY");
    sizes[i] = static_cast<uint64_t>(size.value_or(0));
    if (ends_turn(i)) PRM_RETURN_IF_ERROR(meter_.TakeAfter(0));
  }
  return {};
}

// Asks for the values of all keys at one moment.
void NamedKeys::AskAtOnce(const Group& keys) {
  const uint64_t room = keys.size() * kBytesPerKey + kInfoBytes + options_.max_reply_bytes;
  meter_.AskBefore();
  connection_.Append({"MULTI"});
  connection_.Append({"INFO", "replication"});
  if (!server_.has_pexpiretime) connection_.Append({"TIME"});
  for (const NamedKey* key : keys) {
    connection_.Append({server_.has_pexpiretime ? "PEXPIRETIME" : "PTTL", key->entry.key});
    connection_.Append({"DUMP", key->entry.key});
  }
  connection_.Append({"EXEC"}, {room, true});
  meter_.AskAfter();
  connection_.EndTurn();
}

// Takes the oldest answer, to AskAtOnce of these keys. Those of which one has turned out to be too large are
// added to `again`, and those that DUMP does not help with to `in_pieces`: all, if the server has no memory
// left. Then it takes no command into a MULTI.
Status NamedKeys::ReceiveAtOnce(const Group& keys, Group& again, Group& in_pieces) {
  PRM_RETURN_IF_ERROR(meter_.TakeBefore());
  std::optional<Error> refused;
  for (size_t left = 2 + 2 * keys.size() + (server_.has_pexpiretime ? 0 : 1); left > 0; --left) {
    const auto queued = connection_.Receive();
    if (!queued.ok()) return queued.error();
    if (!refused && queued.value().IsError()) refused = connection_.ToError(queued.value());
  }
  const auto answers = connection_.Receive();
  if (!answers.ok()) return answers.error();
  PRM_RETURN_IF_ERROR(meter_.TakeAfter(keys.size()));
  if (refused && refused->detail.substr(0, 4) == "OOM ") {
    no_memory_ = true;
    in_pieces.insert(in_pieces.end(), keys.begin(), keys.end());
    return {};
  }
  if (refused) return *refused;
  if (answers.value().IsError()) return connection_.ToError(answers.value().ErrorText(), "EXEC");
  if (answers.value().dropped() == 0) return TakeAnswers(answers.value(), keys, in_pieces);
  again.insert(again.end(), keys.begin(), keys.end());  // which of them it is is not known
  return {};
}

// The reply of EXEC: INFO, perhaps TIME, and for each key its expiry and its value.
Status NamedKeys::TakeAnswers(const Reply& answers, const Group& keys, Group& in_pieces) {
  const size_t first = server_.has_pexpiretime ? 1 : 2;
  const auto moment = MomentIn(answers.element(0).String().value_or(""));
  if (answers.size() != first + 2 * keys.size() || !moment) return connection_.UnknownReply("EXEC");
  int64_t now_ms = 0;
  if (!server_.has_pexpiretime) {
    const auto time = ParseTime(connection_, answers.element(1));
    if (!time.ok()) return time.error();
    now_ms = time.value();
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    connection_.waiter().CheckInterrupts();
    Entry& entry = keys[i]->entry;
    const ReplyView expiry = answers.element(first + 2 * i);
    const ReplyView value = answers.element(first + 2 * i + 1);
    for (const ReplyView& answer : {expiry, value}) {
      if (answer.IsError()) return ForKey(connection_.ToError(answer.ErrorText(), "EXEC"), entry);
    }
    const auto expires = expiry.Integer();
    if (!expires || *expires < kNoKey || (!value.IsString() && !value.IsNil()))
      return connection_.UnknownReply("EXEC");
    keys[i]->since = keys[i]->until = moment->point;
    keys[i]->is_of_replica = moment->is_replica;
    entry.expires_at_ms.reset();
    entry.plain = false;
    entry.large.reset();
    entry.payload = value.String().value_or("");
    entry.state = value.IsNil() ? EntryState::kVanished : EntryState::kRead;
    if (value.IsNil()) continue;
    if (*expires >= 0) {
      entry.expires_at_ms = now_ms + std::min(*expires, std::numeric_limits<int64_t>::max() - now_ms);
    }
    if (!rdb::CanDecodeDump(entry.payload)) in_pieces.push_back(keys[i]);
  }
  return {};
}

Status NamedKeys::ReadInPieces(const Group& keys) {
  const auto since = FetchMoment();
  if (!since.ok()) return since.error();
  std::vector<uint64_t> sizes(keys.size());
  PRM_RETURN_IF_ERROR(AskSizes(keys, sizes));
  std::vector<ValueReader::Wanted> wanted;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (sizes[i] > options_.max_value_bytes) {
      keys[i]->entry.state = EntryState::kTooLarge;
      keys[i]->entry.size = sizes[i];
      DropPayload(keys[i]->entry);
    } else {
      wanted.push_back({&keys[i]->entry, sizes[i]});
    }
  }
  if (!wanted.empty()) PRM_RETURN_IF_ERROR(values_.Read(wanted));
  for (const ValueReader::Wanted& one : wanted) {
    if (!no_memory_ || one.entry->state != EntryState::kUnsupported) continue;
    const Error error = {ErrorCode::kUnavailable,
                         "Redis at " + connection_.address() +
                             " has no memory left, and only DUMP can read a value of type " +
                             Printable(one.entry->type_name),
                         {},
                         {}};
    return ForKey(error, *one.entry);
  }
  const auto until = FetchMoment();
  if (!until.ok()) return until.error();
  if (since.value().point.id != until.value().point.id) {
    return Error{ErrorCode::kUnavailable,
                 "Redis at " + connection_.address() + " has changed its replication id while keys were read",
                 {},
                 {}};
  }
  for (NamedKey* key : keys) {
    key->since = since.value().point;
    key->until = until.value().point;
    key->is_of_replica = since.value().is_replica || until.value().is_replica;
  }
  return {};
}

}  // namespace prm::source
