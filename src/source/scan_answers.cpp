// The answers to the requests of a scan; scan.cpp sends the requests.
#include <algorithm>
#include <utility>

#include "rdb/dump.h"
#include "rdb/version.h"
#include "source/living_fields.h"
#include "source/scan.h"

namespace prm::source {

namespace {

// The number of readings of a key that keeps changing; then the last one counts.
constexpr int kMaxReads = 3;

// So many answers to GETRANGE say whether few keys are small strings.
constexpr int kSampleSize = 128;

// The number of values read in pieces at a time.
constexpr size_t kMostInPieces = 256;

}  // namespace

// Takes the answer to the oldest request.
Status ScanSource::Answer() {
  const Request request = requests_.front();
  requests_.pop_front();
  if (asked_before_ > 0) --asked_before_;
  switch (request.command) {
    case Command::kSelect: {
      const Result<redis::Reply> reply = connection_.Receive();
      if (!reply.ok()) return reply.error();
      return reply.value().IsError() ? Status(connection_.ToError(reply.value())) : Status();
    }
    case Command::kInfo:
      return AnswerInfo(request);
    case Command::kScan:
      return AnswerScan();
    case Command::kGetrange:
      return AnswerGetrange(request);
    case Command::kMemoryUsage:
    case Command::kStrlen:
      return AnswerSize(request);
    case Command::kDump:
      break;
  }
  return AnswerDump(request);
}

Status ScanSource::AnswerSize(const Request& request) {
  const Result<redis::Reply> received = connection_.Receive();
  if (!received.ok()) return received.error();
  const redis::Reply& reply = received.value();
  Slot& slot = At(request.slot);
  if (reply.IsError()) {
    const Error error = connection_.ToError(reply);
    if (!IsMissingCommand(error)) return ForKey(error, slot.entry);
    if (request.command == Command::kMemoryUsage) {
      has_memory_usage_ = false;
      AskSize(request.slot);
      return {};
    }
    // Not a string, so of any size. If it cannot be read in pieces, nothing else may be in flight.
    SetSize(slot, options_.bytes_in_flight);
    slot.unknown_size = true;
    return {};
  }
  const bool is_memory_usage = request.command == Command::kMemoryUsage;
  if (const auto size = reply.Integer(); size && *size >= 0) {
    if (static_cast<uint64_t>(*size) <= options_.max_value_bytes) {
      SetSize(slot, static_cast<uint64_t>(*size));
      return {};
    }
    slot.entry.state = EntryState::kTooLarge;
    slot.entry.size = static_cast<uint64_t>(*size);
  } else if (is_memory_usage && reply.IsNil()) {
    slot.entry.state = EntryState::kVanished;
  } else {
    return connection_.UnknownReply(is_memory_usage ? "MEMORY" : "STRLEN");
  }
  Finish(slot);
  return {};
}

void ScanSource::SetSize(Slot& slot, uint64_t size) {
  slot.size = size;
  slot.stage = Stage::kSized;
}

void ScanSource::Finish(Slot& slot) {
  slot.stage = Stage::kDone;
  --unfinished_;
}

Status ScanSource::AnswerGetrange(const Request& request) {
  const uint64_t number = request.slot;
  const Result<Reading> received = ReceiveReading(request);
  if (!received.ok()) return received.error();
  const Reading& reading = received.value();
  const redis::Reply& value = reading.value;
  if (value.IsError() && !IsMissingCommand(reading.value_status.error())) return reading.value_status;

  if (!value.IsString() && !value.IsError()) return connection_.UnknownReply("GETRANGE");

  Slot& slot = At(number);
  bytes_in_flight_ -= slot.size;
  const Bytes bytes = value.String().value_or("");
  const bool same_expiry = expiries_->IsSame(reading.expiry_before, reading.expiry_after);
  const bool is_gone = bytes.empty() && same_expiry && reading.expiry_after == kNoKey;
  const bool is_value =
      !bytes.empty() && bytes.size() < kProbeBytes && same_expiry && reading.expiry_after != kNoKey;
  CountGetrange(is_gone || is_value);
  if (is_gone) {
    slot.entry.state = EntryState::kVanished;
    Finish(slot);
  } else if (is_value) {
    slot.entry.plain = true;
    SetValue(slot, bytes, reading.expiry_after);
    Settle(slot, request);
  } else {
    AskSize(number);
  }
  return {};
}

void ScanSource::CountGetrange(bool settled) {
  if (settled) ++settled_;
  if (++sampled_ < kSampleSize) return;
  few_strings_ = 2 * settled_ < sampled_;
  sampled_ = settled_ = 0;
}

Status ScanSource::AnswerDump(const Request& request) {
  const uint64_t number = request.slot;
  const Result<Reading> received = ReceiveReading(request);
  if (!received.ok()) return received.error();
  const Reading& reading = received.value();
  const redis::Reply& dump = reading.value;
  Slot& slot = At(number);
  if (dump.IsError()) {
    if (!IsMissingCommand(reading.value_status.error())) return reading.value_status;
    if (slot.no_pieces) return reading.value_status;
    dump_refused_ = reading.value_status.error();
    bytes_in_flight_ -= slot.size;
    slot.stage = Stage::kInPieces;
    return {};
  }
  if (!dump.IsString() && !dump.IsNil()) return connection_.UnknownReply("DUMP");
  const bool is_gone = (dump.IsNil() && dump.dropped() == 0) || reading.expiry_after == kNoKey;
  if (!expiries_->IsSame(reading.expiry_before, reading.expiry_after) && slot.reads < kMaxReads) {
    AskValue(Command::kDump, number);
    return {};
  }
  Entry& entry = slot.entry;
  if (is_gone) {
    entry.state = EntryState::kVanished;
  } else if (dump.dropped() > 0) {
    entry.state = EntryState::kTooLarge;
    entry.size = dump.dropped();
  } else if (server_.has_time && !reading.now_ms && rdb::MayHaveExpiringFields(*dump.String())) {
    asks_time_ = true;
    AskValue(Command::kDump, number);
    return {};
  } else {
    SetValue(slot, *dump.String(), reading.expiry_after);
    const bool is_readable = rdb::CanDecodeDump(entry.payload);
    if (!is_readable && request.expiry_reads != ExpiryReads::kTwice) {
      bytes_in_flight_ -= slot.size;
      ReadWithExpiries(number);
      return {};
    }
    if (!is_readable) {
      const std::optional<unsigned> version = rdb::DumpVersion(entry.payload);
      if (version && !rdb::IsSupportedVersion(*version)) unknown_version_ = version;
      if (!slot.no_pieces) {
        bytes_in_flight_ -= slot.size;
        slot.stage = Stage::kInPieces;
        return {};
      }
    }
    if (reading.now_ms) DropExpired(slot, *reading.now_ms);
  }
  bytes_in_flight_ -= slot.size;
  Settle(slot, request);
  return {};
}

void ScanSource::DropExpired(Slot& slot, int64_t now_ms) {
  held_bytes_ -= slot.entry.payload.size();
  const Result<bool> living = DropExpiredFields(slot.entry, now_ms, connection_.waiter());
  if (living.ok() && !living.value()) {  // the decoder rejects damaged values
    slot.entry.state = EntryState::kVanished;
    DropPayload(slot.entry);
  }
  held_bytes_ += slot.entry.payload.size();
}

// Whether DUMP cannot be used: it is refused, or its reply would be too large.
bool ScanSource::IsForPieces(const Slot& slot) const {
  return !slot.no_pieces && (dump_refused_ || slot.unknown_size || slot.size > options_.max_reply_bytes);
}

// Reads the value that the caller waits for, and others that need it, in pieces, with nothing else in flight.
Status ScanSource::ReadInPieces() {
  while (!requests_.empty()) PRM_RETURN_IF_ERROR(Answer());
  std::vector<uint64_t> group;
  uint64_t bytes = 0;
  for (uint64_t number = first_slot_; number < end_slot() && group.size() < kMostInPieces; ++number) {
    if (At(number).stage != Stage::kInPieces) continue;
    bytes += At(number).unknown_size ? kPieceBytes : At(number).size;
    if (!group.empty() && bytes > options_.bytes_in_flight) break;
    group.push_back(number);
  }
  return ReadInPieces(group);
}

Status ScanSource::ReadInPieces(const std::vector<uint64_t>& group) {
  std::vector<ValueReader::Wanted> wanted;
  for (const uint64_t number : group) {
    Slot& slot = At(number);
    wanted.push_back({&slot.entry, slot.unknown_size ? 0 : slot.size});
    held_bytes_ -= PayloadSize(slot.entry);
  }
  const Status status = values_->Read(wanted);
  for (const uint64_t number : group) held_bytes_ += PayloadSize(At(number).entry);
  if (!status.ok()) {
    if (!IsMissingCommand(status.error())) return status;
    if (group.size() == 1) return RefusePieces(group.front());
    for (const uint64_t number : group) PRM_RETURN_IF_ERROR(ReadInPieces({number}));
    return {};
  }
  for (const uint64_t number : group) Finish(At(number));
  return {};
}

// A command for pieces is forbidden, so DUMP must be used, if permitted, however large the value.
Status ScanSource::RefusePieces(uint64_t number) {
  if (dump_refused_) return *dump_refused_;
  Slot& slot = At(number);
  slot.no_pieces = true;
  if (!slot.entry.payload.empty()) {  // of an unknown type or version
    Finish(slot);
    return {};
  }
  slot.stage = Stage::kSized;
  next_dump_ = std::min(next_dump_, number);
  return {};
}

void ScanSource::SetValue(Slot& slot, Bytes payload, int64_t expiry) {
  slot.entry.payload = payload;
  slot.entry.large.reset();
  if (expiry != kNoExpiry) slot.entry.expires_at_ms = expiry;
  held_bytes_ += payload.size();
}

Result<ScanSource::Reading> ScanSource::ReceiveReading(const Request& request) {
  const Entry& entry = At(request.slot).entry;
  const auto receive_expiry = [&](bool asked) {
    return asked ? expiries_->Receive(entry) : Result<int64_t>(kNoExpiry);
  };
  const bool is_twice = request.expiry_reads == ExpiryReads::kTwice;
  const Result<int64_t> before = receive_expiry(is_twice);
  if (!before.ok()) return before.error();
  std::optional<int64_t> now_ms;
  if (request.with_time) {
    const Result<redis::Reply> time = connection_.Receive();
    if (!time.ok()) return time.error();
    const Result<int64_t> parsed = ParseTime(connection_, time.value());
    if (!parsed.ok()) return parsed.error();
    now_ms = parsed.value();
  }
  Result<redis::Reply> value = connection_.Receive();
  if (!value.ok()) return value.error();
  Status status;
  if (value.value().IsError()) status = ForKey(connection_.ToError(value.value()), entry);
  const Result<int64_t> after = receive_expiry(request.expiry_reads != ExpiryReads::kNone);
  if (!after.ok()) return after.error();
  return Reading{is_twice ? before.value() : after.value(), now_ms, std::move(value.value()),
                 std::move(status), after.value()};
}

}  // namespace prm::source
