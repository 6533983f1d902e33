#include "source/scan.h"

#include <algorithm>
#include <utility>

#include "core/printable.h"
#include "rdb/dump.h"
#include "rdb/version.h"
#include "source/living_fields.h"

namespace prm::source {

namespace {

// The number of readings of a key that keeps changing; then the last one counts.
constexpr int kMaxReads = 3;

// The bytes that GETRANGE asks for. Charged to bytes_in_flight, so that a longer piece leaves fewer keys
// under way: with this one and the default 8 MB it is more than a batch.
constexpr uint64_t kProbeBytes = kShortStringLimit;

// Redis gives a string that grows by APPEND twice the memory it needs, and rounds up: a key and value of n
// bytes take less than this many times n.
constexpr uint64_t kMostMemoryPerByte = 4;

// Where few keys are small strings, one in so many is asked by GETRANGE all the same. So many answers say
// whether there are few.
constexpr uint64_t kSampleEvery = 32;
constexpr int kSampleSize = 128;

// The number of batches of names in flight, see WorkAhead.
constexpr size_t kBatchesAhead = 4;

// The size of the pieces of large values, and the number of values read in pieces at a time.
constexpr uint64_t kPieceBytes = uint64_t{1} << 20;
constexpr size_t kMostInPieces = 256;

// If Redis evicts keys when its memory is full, replies must fit into the free memory. At most this share of
// it is asked for at a time: DUMP holds a value twice while it replies, and the application keeps writing.
constexpr int64_t kHeadroomShare = 8;
// With less free memory even reading names could evict keys.
constexpr int64_t kLeastHeadroom = 1024 * 1024;
// The reply to SCAN counts too: this many bytes per name.
constexpr int64_t kBytesPerName = 128;

uint64_t BytesOf(const Entry& entry) { return entry.key.size() + entry.payload.size(); }

}  // namespace

ScanSource::ScanSource(redis::Connection& connection, const ScanOptions& options, KeyFilter& filter)
    : connection_(connection),
      options_(options),
      filter_(filter),
      rate_(options.max_rate),
      recent_(RandomSipKey()) {}

Result<std::unique_ptr<ScanSource>> ScanSource::Open(redis::Connection& connection,
                                                     const ScanOptions& options, KeyFilter& filter,
                                                     const std::string& position) {
  std::unique_ptr<ScanSource> source(new ScanSource(connection, options, filter));
  PRM_RETURN_IF_ERROR(source->Prepare(position));
  return source;
}

Status ScanSource::Prepare(const std::string& position) {
  std::vector<int>& databases = options_.databases;
  std::sort(databases.begin(), databases.end());
  databases.erase(std::unique(databases.begin(), databases.end()), databases.end());
  if (databases.empty() || databases.front() < 0 || options_.batch_keys == 0 || options_.scan_count <= 0) {
    return Error{ErrorCode::kInvalidArgument, "invalid options of a scan", {}, {}};
  }

  const Result<redis::ServerInfo> info = redis::FetchInfo(connection_);
  if (!info.ok() && !IsMissingCommand(info.error())) return info.error();
  if (info.ok() && IsRunId(info.value().run_id()) && !connection_.gate().Quotes(info.value().run_id()))
    run_id_ = info.value().run_id();
  if (info.ok()) PRM_RETURN_IF_ERROR(FitHeadroom(info.value()));

  // New in Redis 7.2. Without it reading makes keys look recently used, which affects eviction.
  const Result<redis::Reply> no_touch = connection_.Command({"CLIENT", "NO-TOUCH", "ON"});
  if (!no_touch.ok() && !IsMissingCommand(no_touch.error())) return no_touch.error();

  const Result<bool> pexpiretime = MayUse({"PEXPIRETIME", ""});  // new in Redis 7.0
  if (!pexpiretime.ok()) return pexpiretime.error();
  expiries_.emplace(connection_, pexpiretime.value());
  PRM_RETURN_IF_ERROR(FindAbilities(info));
  values_.emplace(connection_, pexpiretime.value(), server_,
                  std::min({kPieceBytes, options_.bytes_in_flight, options_.max_reply_bytes}),
                  options_.max_value_bytes);
  const Result<bool> getrange = MayUse({"GETRANGE", "", "0", "0"});
  if (!getrange.ok()) return getrange.error();
  has_getrange_ = getrange.value();

  position_ = {run_id_, databases.front(), "0", false};
  if (position.empty()) return {};
  Result<ScanPosition> parsed = ScanPosition::Parse(position);
  if (!parsed.ok()) return parsed.error();
  const auto db = std::lower_bound(databases.begin(), databases.end(), parsed.value().db);
  if (db == databases.end() || *db != parsed.value().db) {
    return Error{ErrorCode::kInvalidArgument,
                 "scan position names a database that is not to be read",
                 "The position is \"" + Printable(position) + "\".",
                 {}};
  }
  restarted_ = run_id_.empty() || parsed.value().run_id != run_id_;
  if (restarted_) return {};
  position_ = std::move(parsed.value());
  db_index_ = static_cast<size_t>(db - databases.begin()) + (position_.db_done ? 1 : 0);
  cursor_ = position_.cursor;
  return {};
}

// Lowers the limits to what the server can hold without evicting keys.
Status ScanSource::FitHeadroom(const redis::ServerInfo& info) {
  const std::optional<int64_t> headroom = info.headroom();
  if (!headroom) return {};
  if (*headroom < kLeastHeadroom) {
    const int64_t needed = kHeadroomShare * static_cast<int64_t>(options_.bytes_in_flight);
    return Error{ErrorCode::kLowMemory,
                 "Redis at " + connection_.address() + " has too little memory left to be read",
                 "It is " + std::to_string(*headroom / 1024) +
                     " kB below maxmemory and evicts keys when it is full. Replies count towards that, so "
                     "that reading would lose keys.",
                 "Raise it for the time of the run: CONFIG SET maxmemory " +
                     std::to_string(*info.maxmemory() - *headroom + needed) + "."};
  }
  const int64_t share = *headroom / kHeadroomShare;
  options_.bytes_in_flight = std::min(options_.bytes_in_flight, static_cast<uint64_t>(share));
  options_.max_reply_bytes = std::min(options_.max_reply_bytes, static_cast<uint64_t>(share));
  options_.scan_count = std::min(options_.scan_count, static_cast<long>(share / kBytesPerName));
  return {};
}

// Whether fields of hashes may expire. If HPEXPIRETIME exists but is forbidden it is sent all the same: an
// error is better than a field that loses its expiry.
Status ScanSource::FindAbilities(const Result<redis::ServerInfo>& info) {
  const Result<redis::Reply> reply = connection_.Command({"HPEXPIRETIME", "", "FIELDS", "1", ""});
  if (!reply.ok() && reply.error().code != ErrorCode::kMoved && !IsMissingCommand(reply.error())) {
    return reply.error();
  }
  server_.has_field_expiries = reply.ok() || reply.error().code != ErrorCode::kServerError ||
                               reply.error().detail.find(" key") != std::string::npos;
  server_.valkey = info.ok() && !info.value().Get("valkey_version").empty();
  if (!server_.has_field_expiries) return {};
  const Result<bool> time = MayUse({"TIME"});
  if (!time.ok()) return time.error();
  server_.has_time = time.value();
  return {};
}

// Tries a command. An error about the key also shows that the command exists and is permitted.
Result<bool> ScanSource::MayUse(std::initializer_list<Bytes> command) {
  const Result<redis::Reply> reply = connection_.Command(command);
  if (reply.ok()) return true;
  if (reply.error().code == ErrorCode::kMoved) return true;
  if (!IsMissingCommand(reply.error())) return reply.error();
  return reply.error().detail.find(" key") != std::string::npos;
}

Result<bool> ScanSource::Next(Batch& batch) {
  if (dead_) return *dead_;
  // Stays set if a wait or the filter throws: the entries taken so far would be missing from the next batch.
  dead_ = Error{ErrorCode::kConnectionFailure, "the scan was interrupted", {}, {}};
  batch.entries.clear();
  batch.bytes = 0;
  names_in_batch_ = page_start_entries_ = page_start_bytes_ = 0;
  if (const Status status = Fill(batch); !status.ok()) {
    dead_ = status.error();
    return status.error();
  }
  batch.position = position_.ToString();
  batch.goes_beyond = first_slot_ != page_start_;
  batch.unknown_version = std::exchange(unknown_version_, std::nullopt);
  const bool advanced = std::exchange(moved_, false) || !batch.entries.empty();
  const Status status = WorkAhead();
  dead_.reset();
  if (!status.ok()) dead_ = status.error();  // of no concern to this batch
  return advanced;
}

// Moves finished entries to the batch, in the order of SCAN. True when the batch is complete.
bool ScanSource::Collect(Batch& batch) {
  for (;;) {
    while (!page_ends_.empty() && page_ends_.front().end == first_slot_) {
      const uint64_t names = page_ends_.front().names;
      page_start_ = first_slot_;
      position_ = std::move(page_ends_.front().position);
      moved_ = true;
      page_ends_.pop_front();
      if (PageEndsBatch(batch, names)) return true;
    }
    if (slots_.empty()) return false;
    // A resumed scan would read a split page again.
    const bool cuts_page =
        batch.entries.size() + (page_ends_.front().end - first_slot_) > options_.batch_keys;
    if (first_slot_ == page_start_ && cuts_page && !batch.entries.empty()) return true;
    if (slots_.front().stage != Stage::kDone) return false;
    Entry& entry = slots_.front().entry;
    const uint64_t bytes = BytesOf(entry);
    const bool fits = batch.entries.empty() || (batch.entries.size() < options_.batch_keys &&
                                                batch.bytes + bytes <= options_.batch_bytes);
    if (!fits) return true;
    held_bytes_ -= bytes;
    batch.bytes += bytes;
    batch.entries.push_back(std::move(entry));
    slots_.pop_front();
    ++first_slot_;
    next_named_ = std::max(next_named_, first_slot_);
    next_dump_ = std::max(next_dump_, first_slot_);
  }
}

// Whether the batch should end at the end of this page: when another page like it would not fit.
bool ScanSource::PageEndsBatch(const Batch& batch, uint64_t names) {
  const size_t page_entries = batch.entries.size() - std::exchange(page_start_entries_, batch.entries.size());
  const uint64_t page_bytes = batch.bytes - std::exchange(page_start_bytes_, batch.bytes);
  names_in_batch_ += names;
  return names_in_batch_ >= options_.batch_names ||
         batch.entries.size() + page_entries > options_.batch_keys ||
         batch.bytes + page_bytes > options_.batch_bytes;
}

// Reads until the batch is complete or nothing is left.
Status ScanSource::Fill(Batch& batch) {
  while (!Collect(batch)) {
    PlanNames();
    PlanValues();
    if (!slots_.empty() && slots_.front().stage == Stage::kInPieces) {
      PRM_RETURN_IF_ERROR(ReadInPieces());
    } else if (!requests_.empty()) {
      PRM_RETURN_IF_ERROR(Answer());
    } else if (db_index_ < options_.databases.size()) {  // names are left, but the ceiling holds them back
      connection_.waiter().Wait(nullptr, 0, rate_.WaitMs());
    } else {
      break;
    }
  }
  return {};
}

// Keeps Redis busy while the caller is. Names, GETRANGE, sizes and values each need the answers to what goes
// before, so four batches are under way, and each is taken one step further here. Replies belong to requests
// of a batch ago, so there is no wait, unless Redis would run out of values to read.
Status ScanSource::WorkAhead() {
  while (!requests_.empty() && (asked_before_ > 0 || !IsForValue(requests_.front().command)) &&
         held_bytes_ < options_.bytes_in_flight) {
    PRM_RETURN_IF_ERROR(Answer());
  }
  PlanValues();
  PlanNames();
  connection_.Flush();
  asked_before_ = requests_.size();
  return {};
}

void ScanSource::PlanNames() {
  if (scanning_ || db_index_ == options_.databases.size()) return;
  if (!selected_) {
    // Keys of the database before may have to be read again, which must not happen in this one.
    if (unfinished_ > 0) return;
    recent_.Clear();
    connection_.Append({"SELECT", std::to_string(options_.databases[db_index_])});
    requests_.push_back({Command::kSelect, 0});
    selected_ = true;
  } else if (slots_.size() >= kBatchesAhead * options_.batch_keys ||
             held_bytes_ >= options_.bytes_in_flight) {
    return;
  }
  if (rate_.WaitMs() > 0) return;
  connection_.Append({"SCAN", cursor_, "COUNT", std::to_string(options_.scan_count)}, kNamesLimit);
  requests_.push_back({Command::kScan, 0});
  scanning_ = true;
}

// The value that the caller needs next goes first; no other overtakes it.
void ScanSource::PlanValues() {
  if (PlanDumps()) PlanGetranges();
}

// False if bytes_in_flight allows no more.
bool ScanSource::PlanDumps() {
  for (; next_dump_ < end_slot(); ++next_dump_) {
    Slot& slot = At(next_dump_);
    if (slot.stage < Stage::kSized) return true;
    if (slot.stage != Stage::kSized) continue;
    if (IsForPieces(slot)) {
      slot.stage = Stage::kInPieces;
      continue;
    }
    if (!Reserve(slot.size)) return false;
    slot.stage = Stage::kReading;
    AskValue(Command::kDump, next_dump_);
  }
  return true;
}

void ScanSource::PlanGetranges() {
  for (; next_named_ < end_slot(); ++next_named_) {
    Slot& slot = At(next_named_);
    if (slot.stage != Stage::kNamed) continue;
    if (!ShouldGetrange(slot, next_named_)) {
      AskSize(next_named_);
    } else if (Reserve(kProbeBytes)) {
      slot.size = kProbeBytes;
      AskValue(Command::kGetrange, next_named_);
    } else {
      return;
    }
    slot.stage = Stage::kSizing;
  }
}

// A value that GETRANGE settles must be within max_value_bytes for certain.
bool ScanSource::ShouldGetrange(const Slot& slot, uint64_t number) const {
  return has_getrange_ && (!few_strings_ || number % kSampleEvery == 0) &&
         kMostMemoryPerByte * (slot.entry.key.size() + kProbeBytes) <= options_.max_value_bytes;
}

// Charges the bytes to those in flight. False if there is no room for them, and they are not alone.
bool ScanSource::Reserve(uint64_t bytes) {
  if (bytes_in_flight_ > 0 && bytes_in_flight_ + bytes > options_.bytes_in_flight) return false;
  bytes_in_flight_ += bytes;
  return true;
}

void ScanSource::AskSize(uint64_t slot) {
  const std::string& key = At(slot).entry.key;
  if (has_memory_usage_) {
    connection_.Append({"MEMORY", "USAGE", key});
  } else {
    connection_.Append({"STRLEN", key});
  }
  requests_.push_back({has_memory_usage_ ? Command::kMemoryUsage : Command::kStrlen, slot});
}

void ScanSource::AskValue(Command command, uint64_t slot) {
  const std::string& key = At(slot).entry.key;
  expiries_->Ask(key);
  if (command == Command::kGetrange) {
    connection_.Append({"GETRANGE", key, "0", std::to_string(kProbeBytes - 1)});
  } else {
    ++At(slot).reads;
    if (asks_time_) connection_.Append({"TIME"});
    connection_.Append({"DUMP", key}, {options_.max_value_bytes, true});
  }
  expiries_->Ask(key);
  requests_.push_back({command, slot, command == Command::kDump && asks_time_});
}

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
    case Command::kScan:
      return AnswerScan();
    case Command::kGetrange:
      return AnswerGetrange(request.slot);
    case Command::kMemoryUsage:
    case Command::kStrlen:
      return AnswerSize(request);
    case Command::kDump:
      break;
  }
  return AnswerDump(request);
}

Status ScanSource::AnswerScan() {
  const Result<redis::Reply> received = connection_.Receive();
  if (!received.ok()) return ForNames(received.error());
  const redis::Reply& reply = received.value();
  if (reply.IsError()) return connection_.ToError(reply);
  const Bytes cursor = reply.element(0).String().value_or("");
  if (reply.size() != 2 || !IsCursor(cursor) || !reply.element(1).IsArray()) {
    return connection_.UnknownReply("SCAN");
  }
  scanning_ = false;
  rate_.Take(reply.element(1).size());
  PRM_RETURN_IF_ERROR(TakePage(reply.element(1)));
  cursor_ = cursor;
  const bool db_done = cursor_ == "0";
  page_ends_.push_back({end_slot(), reply.element(1).size(),
                        ScanPosition{run_id_, options_.databases[db_index_], cursor_, db_done}});
  if (db_done) {
    ++db_index_;
    selected_ = false;
  }
  return {};
}

Status ScanSource::TakePage(const redis::ReplyView& names) {
  const int db = options_.databases[db_index_];
  for (size_t i = 0; i < names.size(); ++i) {
    if (!names.element(i).IsString()) return connection_.UnknownReply("SCAN");
    const Bytes name = *names.element(i).String();
    if (!recent_.Insert(name)) {
      ++duplicates_;
      continue;
    }
    const Interest interest = filter_.Classify(db, name);
    if (interest == Interest::kIgnore) continue;
    Slot& slot = slots_.emplace_back();
    slot.entry.db = db;
    slot.entry.key = name;
    held_bytes_ += name.size();
    if (interest == Interest::kNameOnly) {
      slot.entry.state = EntryState::kNameOnly;
      slot.stage = Stage::kDone;
      continue;
    }
    ++unfinished_;
  }
  return {};
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

Status ScanSource::AnswerGetrange(uint64_t number) {
  const Result<Reading> received = ReceiveReading(number, false);
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
    Finish(slot);
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
  const Result<Reading> received = ReceiveReading(number, request.with_time);
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
    if (!rdb::CanDecodeDump(entry.payload)) {
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
  Finish(slot);
  return {};
}

void ScanSource::DropExpired(Slot& slot, int64_t now_ms) {
  held_bytes_ -= slot.entry.payload.size();
  const Result<bool> living = DropExpiredFields(slot.entry.payload, now_ms, connection_.waiter());
  if (living.ok() && !living.value()) {  // the decoder rejects damaged values
    slot.entry.state = EntryState::kVanished;
    std::string().swap(slot.entry.payload);
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
    held_bytes_ -= slot.entry.payload.size();
  }
  const Status status = values_->Read(wanted);
  for (const uint64_t number : group) held_bytes_ += At(number).entry.payload.size();
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
  if (expiry != kNoExpiry) slot.entry.expires_at_ms = expiry;
  held_bytes_ += payload.size();
}

Result<ScanSource::Reading> ScanSource::ReceiveReading(uint64_t slot, bool with_time) {
  const Result<int64_t> before = expiries_->Receive(At(slot).entry);
  if (!before.ok()) return before.error();
  std::optional<int64_t> now_ms;
  if (with_time) {
    const Result<redis::Reply> time = connection_.Receive();
    if (!time.ok()) return time.error();
    const Result<int64_t> parsed = ParseTime(connection_, time.value());
    if (!parsed.ok()) return parsed.error();
    now_ms = parsed.value();
  }
  Result<redis::Reply> value = connection_.Receive();
  if (!value.ok()) return value.error();
  Status status;
  if (value.value().IsError()) status = ForKey(connection_.ToError(value.value()), At(slot).entry);
  const Result<int64_t> after = expiries_->Receive(At(slot).entry);
  if (!after.ok()) return after.error();
  return Reading{before.value(), now_ms, std::move(value.value()), std::move(status), after.value()};
}

}  // namespace prm::source
