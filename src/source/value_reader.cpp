#include "source/value_reader.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "redis/error_words.h"

namespace prm::source {

namespace {

// The number of attempts to read a key that is written to meanwhile.
constexpr int kMaxAttempts = 5;

constexpr size_t kCompareBytes = size_t{256} << 10;

// Whether two payloads of which one is large are the same.
Result<bool> AreSame(const Entry& a, const Entry& b) {
  if (!a.large || !b.large || PayloadSize(a) != PayloadSize(b)) return false;
  std::string of_a, of_b;
  for (uint64_t at = 0; at < PayloadSize(a); at += kCompareBytes) {
    const Result<Bytes> part = PayloadPart(a, at, kCompareBytes, of_a);
    if (!part.ok()) return part.error();
    const Result<Bytes> other = PayloadPart(b, at, kCompareBytes, of_b);
    if (!other.ok()) return other.error();
    if (part.value() != other.value()) return false;
  }
  return true;
}

Error ToError(redis::Connection& connection, const redis::Reply& reply, const char* command) {
  return reply.IsError() ? connection.ToError(reply) : connection.UnknownReply(command);
}

}  // namespace

struct ValueReader::Reading {
  const Wanted* wanted;
  int64_t expiry = kNoExpiry;
  std::unique_ptr<PieceReader> reader;  // none: no value to read
};

ValueReader::ValueReader(redis::Connection& connection, const ServerAbilities& server, uint64_t piece_bytes,
                         uint64_t max_value_bytes, MakeSpool make_spool)
    : connection_(connection),
      expiries_(connection, server.has_pexpiretime),
      limits_{piece_bytes, max_value_bytes, RandomSipKey(), server, std::move(make_spool)} {}

Status ValueReader::Read(const std::vector<Wanted>& wanted) {
  if (!probed_) PRM_RETURN_IF_ERROR(Probe(wanted.front().entry->key));
  probed_ = true;
  if (has_watch_ && wanted.size() > 1) {
    const Result<bool> unchanged = ReadOnce(wanted);
    if (!unchanged.ok()) return unchanged.error();
    if (unchanged.value()) return {};
  }
  for (const Wanted& one : wanted) PRM_RETURN_IF_ERROR(has_watch_ ? ReadUntilUnchanged(one) : ReadTwice(one));
  return {};
}

// Whether WATCH, MULTI and EXEC are permitted. EXEC first: without the right to it there is no way out of
// MULTI.
Status ValueReader::Probe(Bytes key) {
  struct Step {
    std::initializer_list<Bytes> command;
    Bytes expected_refusal;
  };
  const Step steps[] = {
      {{"EXEC"}, redis::kWithoutMulti}, {{"WATCH", key}, {}}, {{"MULTI"}, {}}, {{"EXEC"}, {}}};
  for (const Step& step : steps) {
    const Result<redis::Reply> reply = connection_.Command(step.command);
    if (reply.ok()) continue;
    // Before Redis 6.2 a replica in a cluster redirected WATCH. If the key has really moved, reading it
    // fails, too.
    if (reply.error().code == ErrorCode::kMoved) return {};
    if (!IsMissingCommand(reply.error())) return reply.error();
    const bool is_expected = !step.expected_refusal.empty() &&
                             reply.error().detail.find(step.expected_refusal) != std::string::npos;
    if (!is_expected) return {};
  }
  has_watch_ = true;
  return {};
}

Status ValueReader::ReadUntilUnchanged(const Wanted& wanted) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    const Result<bool> unchanged = ReadOnce({wanted});
    if (!unchanged.ok()) return unchanged.error();
    if (unchanged.value()) return {};
  }
  GiveUp(*wanted.entry);
  return {};
}

Status ValueReader::ReadTwice(const Wanted& wanted) {
  Entry last;
  bool has_last = false;
  for (int attempt = 0; attempt <= kMaxAttempts; ++attempt) {
    Entry now = *wanted.entry;
    const Result<bool> unchanged = ReadPieces({{&now, wanted.memory}});
    if (!unchanged.ok()) return Abandon(unchanged.error());
    bool is_same =
        has_last && now.plain == last.plain && now.payload == last.payload &&
        expiries_.IsSame(last.expires_at_ms.value_or(kNoExpiry), now.expires_at_ms.value_or(kNoExpiry));
    if (is_same && (now.large || last.large)) {
      const Result<bool> large_same = AreSame(now, last);
      if (!large_same.ok()) return large_same.error();
      is_same = large_same.value();
    }
    if (unchanged.value() && (is_same || now.state != EntryState::kRead)) {
      *wanted.entry = std::move(now);
      return {};
    }
    has_last = unchanged.value();
    last = std::move(now);
  }
  GiveUp(*wanted.entry);
  return {};
}

void ValueReader::GiveUp(Entry& entry) {
  entry.state = EntryState::kChanging;
  DropPayload(entry);
}

// Reads all values between WATCH and EXEC. False if a key was written to.
Result<bool> ValueReader::ReadOnce(const std::vector<Wanted>& wanted) {
  // One WATCH per key: the keys of one command must be in one slot of a cluster.
  for (const Wanted& one : wanted) connection_.Append({"WATCH", one.entry->key});
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Result<redis::Reply> watching = connection_.Receive();
    if (!watching.ok()) return watching.error();
    if (!watching.value().IsStatus()) return Abandon(ToError(connection_, watching.value(), "WATCH"));
  }
  const Result<bool> unchanged = ReadPieces(wanted);
  if (!unchanged.ok()) return Abandon(unchanged.error());
  const Result<bool> unwatched = Unwatch();
  if (!unwatched.ok()) return unwatched.error();
  return unchanged.value() && unwatched.value();
}

// Ends the WATCH. False if a watched key was written to.
Result<bool> ValueReader::Unwatch() {
  connection_.Append({"MULTI"});
  connection_.Append({"EXEC"});
  const Result<redis::Reply> multi = connection_.Receive();
  if (!multi.ok()) return multi.error();
  if (!multi.value().IsStatus()) return ToError(connection_, multi.value(), "MULTI");
  const Result<redis::Reply> exec = connection_.Receive();
  if (!exec.ok()) return exec.error();
  if (!exec.value().IsArray() && !exec.value().IsNil()) return ToError(connection_, exec.value(), "EXEC");
  return exec.value().IsArray();
}

// After a refused command: restores the state of the connection, so that it can be used further.
Error ValueReader::Abandon(const Error& error) {
  if (!IsMissingCommand(error)) return error;
  const Result<bool> ended = Drain();
  if (!ended.ok()) return ended.error();
  const Result<bool> unwatched = has_watch_ ? Unwatch() : true;
  return unwatched.ok() ? error : unwatched.error();
}

// Reads all values once. False if it is already clear that a key was written to meanwhile.
Result<bool> ValueReader::ReadPieces(const std::vector<Wanted>& wanted) {
  std::vector<Reading> readings(wanted.size());
  for (const Wanted& one : wanted) {
    expiries_.Ask(one.entry->key);
    connection_.Append({"TYPE", one.entry->key});
  }
  for (size_t i = 0; i < wanted.size(); ++i) {
    readings[i].wanted = &wanted[i];
    PRM_RETURN_IF_ERROR(Begin(readings[i]));
  }
  const auto is_reading = [](const Reading& reading) {
    return reading.reader && reading.reader->state() == PieceReader::State::kReading;
  };
  for (bool any = true; any;) {
    any = false;
    for (const Reading& reading : readings)
      if (is_reading(reading)) reading.reader->Ask(connection_);
    for (const Reading& reading : readings) {
      if (!is_reading(reading)) continue;
      PRM_RETURN_IF_ERROR(reading.reader->Take(connection_));
      if (reading.reader->state() == PieceReader::State::kChanged) return Drain();
      any = true;
    }
  }
  return End(readings);
}

// Receives the replies for the expiry and TYPE.
Status ValueReader::Begin(Reading& reading) {
  Entry& entry = *reading.wanted->entry;
  const Result<int64_t> expiry = expiries_.Receive(entry);
  if (!expiry.ok()) return expiry.error();
  reading.expiry = expiry.value();
  const Result<redis::Reply> type = connection_.Receive();
  if (!type.ok()) return type.error();
  if (!type.value().IsStatus()) return ForKey(ToError(connection_, type.value(), "TYPE"), entry);
  const Bytes name = *type.value().StatusText();
  if (name == "none" || reading.expiry == kNoKey) {
    entry.state = EntryState::kVanished;
    DropPayload(entry);
    return {};
  }
  reading.reader = PieceReader::ForType(name, entry, reading.wanted->memory, limits_);
  if (reading.reader || PayloadSize(entry) > 0) return {};
  entry.state = EntryState::kUnsupported;
  entry.type_name = connection_.gate().Pass(name);
  return {};
}

// Receives the pending replies. Returns false.
Result<bool> ValueReader::Drain() {
  while (connection_.pending() > 0) {
    const Result<redis::Reply> rest = connection_.Receive();
    if (!rest.ok()) return rest.error();
  }
  return false;
}

// Fills the entries. Without WATCH the expiries must be the same as before.
Result<bool> ValueReader::End(std::vector<Reading>& readings) {
  bool unchanged = true;
  if (!has_watch_) {
    for (const Reading& reading : readings)
      if (reading.reader) expiries_.Ask(reading.wanted->entry->key);
    for (const Reading& reading : readings) {
      if (!reading.reader) continue;
      const Result<int64_t> expiry = expiries_.Receive(*reading.wanted->entry);
      if (!expiry.ok()) return expiry.error();
      unchanged = unchanged && expiries_.IsSame(reading.expiry, expiry.value());
    }
  }
  if (!unchanged) return false;
  for (Reading& reading : readings) {
    if (!reading.reader) continue;
    Entry& entry = *reading.wanted->entry;
    if (reading.reader->state() == PieceReader::State::kTooLarge) {
      entry.state = EntryState::kTooLarge;
      entry.size =
          std::max<uint64_t>({reading.wanted->memory, reading.reader->size(), reading.reader->dropped()});
      DropPayload(entry);
      continue;
    }
    entry.state = EntryState::kRead;
    PRM_RETURN_IF_ERROR(reading.reader->Finish());
    reading.reader.reset();
    entry.expires_at_ms.reset();
    if (reading.expiry != kNoExpiry) entry.expires_at_ms = reading.expiry;
  }
  return true;
}

}  // namespace prm::source
