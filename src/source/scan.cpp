#include "source/scan.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/printable.h"
#include "redis/info.h"

namespace prm::source {

namespace {

// A key that is written all the time is read so often; then the last reading stands.
constexpr int kMaxReads = 3;

// Before Redis 7.0 an expiry is computed from two clock readings; such a difference is no change.
constexpr int64_t kExpiryToleranceMs = 1000;

// How many batches of names are under way, see WorkAhead.
constexpr size_t kBatchesAhead = 3;

// A batch ends after so many names even if the filter wants few of them, so that the position is stored now
// and then.
constexpr uint64_t kMaxNamesInBatch = 100000;

bool IsMissingCommand(const Error& error) {
  return error.code == ErrorCode::kPermissionDenied || error.code == ErrorCode::kServerError;
}

uint64_t BytesOf(const Entry& entry) { return entry.key.size() + entry.payload.size(); }

bool ParseInteger(const redis::ReplyView& reply, int64_t& number) {
  if (!reply.IsString()) return false;
  const Bytes text = reply.AsBytes();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

ScanSource::ScanSource(redis::Connection& connection, const ScanOptions& options, KeyFilter& filter)
    : connection_(connection), options_(options), filter_(filter), recent_(RandomSipKey()) {}

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
  if (info.ok() && IsRunId(info.value().run_id())) run_id_ = info.value().run_id();

  // New in Redis 7.0. An error about the key is an answer, too: the command exists and may be used.
  const Result<redis::Reply> expiry = connection_.Command({"PEXPIRETIME", ""});
  if (!expiry.ok()) {
    if (!IsMissingCommand(expiry.error())) return expiry.error();
    has_pexpiretime_ = expiry.error().code == ErrorCode::kPermissionDenied &&
                       expiry.error().detail.find(" key") != std::string::npos;
  }
  // New in Redis 7.2. Reading should not make keys look used to the eviction of the application's Redis.
  const Result<redis::Reply> no_touch = connection_.Command({"CLIENT", "NO-TOUCH", "ON"});
  if (!no_touch.ok() && !IsMissingCommand(no_touch.error())) return no_touch.error();

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

Result<bool> ScanSource::Next(Batch& batch) {
  if (dead_) return *dead_;
  // Holds if a wait or the filter throws: the entries taken so far would be missing from the next batch.
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
    // A page that is cut would be read again by whoever resumes.
    const bool cuts_page =
        batch.entries.size() + (page_ends_.front().end - first_slot_) > options_.batch_keys;
    if (first_slot_ == page_start_ && cuts_page && !batch.entries.empty()) return true;
    if (slots_.front().stage != Stage::kDone) return false;
    Entry& entry = slots_.front().entry;
    const uint64_t bytes = BytesOf(entry);
    const bool fits = batch.entries.empty() || (batch.entries.size() < options_.batch_keys &&
                                                batch.bytes + bytes <= options_.batch_bytes);
    if (!fits) return true;
    name_bytes_ -= entry.key.size();
    batch.bytes += bytes;
    batch.entries.push_back(std::move(entry));
    slots_.pop_front();
    ++first_slot_;
    next_read_ = std::max(next_read_, first_slot_);
  }
}

// Whether the batch should end at the end of this page: when another page like it would not fit.
bool ScanSource::PageEndsBatch(const Batch& batch, uint64_t names) {
  const size_t page_entries = batch.entries.size() - std::exchange(page_start_entries_, batch.entries.size());
  const uint64_t page_bytes = batch.bytes - std::exchange(page_start_bytes_, batch.bytes);
  names_in_batch_ += names;
  return names_in_batch_ >= kMaxNamesInBatch || batch.entries.size() + page_entries > options_.batch_keys ||
         batch.bytes + page_bytes > options_.batch_bytes;
}

// Reads until the batch is complete or nothing is left.
Status ScanSource::Fill(Batch& batch) {
  while (!Collect(batch)) {
    PlanNames();
    PlanReads();
    if (requests_.empty()) break;
    PRM_RETURN_IF_ERROR(Answer());
  }
  return {};
}

// Leaves Redis with work for as long as the caller is busy: the reads of the next batch, and behind them the
// sizes of the one after it and the next page of names. Each of them needs the answers to the one before, so
// three batches are under way. What is answered here was asked a batch ago.
Status ScanSource::WorkAhead() {
  while (!requests_.empty() && requests_.front().command != Command::kRead) {
    PRM_RETURN_IF_ERROR(Answer());
  }
  PlanReads();
  PlanNames();
  connection_.Flush();
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
             name_bytes_ >= options_.bytes_in_flight) {
    return;
  }
  connection_.Append({"SCAN", cursor_, "COUNT", std::to_string(options_.scan_count)});
  requests_.push_back({Command::kScan, 0});
  scanning_ = true;
}

void ScanSource::PlanReads() {
  for (; next_read_ < end_slot(); ++next_read_) {
    Slot& slot = At(next_read_);
    if (slot.stage == Stage::kSizing) return;
    if (slot.stage != Stage::kSized) continue;
    if (bytes_in_flight_ > 0 && bytes_in_flight_ + slot.size > options_.bytes_in_flight) return;
    slot.stage = Stage::kReading;
    bytes_in_flight_ += slot.size;
    AskValue(next_read_);
  }
}

void ScanSource::AskSize(Command command, uint64_t slot) {
  const std::string& key = At(slot).entry.key;
  if (command == Command::kMemoryUsage) {
    connection_.Append({"MEMORY", "USAGE", key});
  } else {
    connection_.Append({"STRLEN", key});
  }
  requests_.push_back({command, slot});
}

void ScanSource::AskValue(uint64_t slot) {
  const std::string& key = At(slot).entry.key;
  ++At(slot).reads;
  AskExpiry(key);
  connection_.Append({"DUMP", key});
  AskExpiry(key);
  requests_.push_back({Command::kRead, slot});
}

void ScanSource::AskExpiry(Bytes key) {
  if (has_pexpiretime_) {
    connection_.Append({"PEXPIRETIME", key});
  } else {
    connection_.Append({"TIME"});
    connection_.Append({"PTTL", key});
  }
}

// Takes the answer to the oldest request.
Status ScanSource::Answer() {
  const Request request = requests_.front();
  requests_.pop_front();
  switch (request.command) {
    case Command::kSelect: {
      const Result<redis::Reply> reply = connection_.Receive();
      if (!reply.ok()) return reply.error();
      return reply.value().IsError() ? Status(connection_.ToError(reply.value())) : Status();
    }
    case Command::kScan:
      return AnswerScan();
    case Command::kMemoryUsage:
    case Command::kStrlen:
      return AnswerSize(request);
    case Command::kRead:
      break;
  }
  return AnswerRead(request.slot);
}

Status ScanSource::AnswerScan() {
  const Result<redis::Reply> received = connection_.Receive();
  if (!received.ok()) return received.error();
  const redis::Reply& reply = received.value();
  if (reply.IsError()) return connection_.ToError(reply);
  if (reply.size() != 2 || !reply.element(0).IsString() || !IsCursor(reply.element(0).AsBytes()) ||
      !reply.element(1).IsArray()) {
    return UnknownReply("SCAN");
  }
  scanning_ = false;
  PRM_RETURN_IF_ERROR(TakePage(reply.element(1)));
  cursor_ = reply.element(0).AsBytes();
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
    if (!names.element(i).IsString()) return UnknownReply("SCAN");
    const Bytes name = names.element(i).AsBytes();
    if (!recent_.Insert(name)) {
      ++duplicates_;
      continue;
    }
    const Interest interest = filter_.Classify(db, name);
    if (interest == Interest::kIgnore) continue;
    Slot& slot = slots_.emplace_back();
    slot.entry.db = db;
    slot.entry.key = name;
    name_bytes_ += name.size();
    if (interest == Interest::kNameOnly) {
      slot.entry.state = EntryState::kNameOnly;
      slot.stage = Stage::kDone;
      continue;
    }
    ++unfinished_;
    AskSize(has_memory_usage_ ? Command::kMemoryUsage : Command::kStrlen, end_slot() - 1);
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
      AskSize(Command::kStrlen, request.slot);
      return {};
    }
    SetSize(slot, options_.bytes_in_flight);  // not a string, so of any size: nothing else may be in flight
    return {};
  }
  if (reply.IsInteger() && static_cast<uint64_t>(reply.AsInteger()) <= options_.max_value_bytes) {
    SetSize(slot, static_cast<uint64_t>(reply.AsInteger()));
    return {};
  }
  if (reply.IsInteger()) {
    slot.entry.state = EntryState::kTooLarge;
    slot.entry.size = static_cast<uint64_t>(reply.AsInteger());
  } else if (reply.IsNil()) {
    slot.entry.state = EntryState::kVanished;
  } else {
    return UnknownReply("MEMORY");
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

Status ScanSource::AnswerRead(uint64_t number) {
  Result<int64_t> before = ReceiveExpiry(number);
  if (!before.ok()) return before.error();
  Result<redis::Reply> dump = ReceiveFor(number);
  if (!dump.ok()) return dump.error();
  Result<int64_t> after = ReceiveExpiry(number);
  if (!after.ok()) return after.error();
  if (!dump.value().IsString() && !dump.value().IsNil()) return UnknownReply("DUMP");

  Slot& slot = At(number);
  if (!SameExpiry(before.value(), after.value()) && slot.reads < kMaxReads) {
    AskValue(number);
    return {};
  }
  Entry& entry = slot.entry;
  if (dump.value().IsNil() || after.value() == kNoKey) {
    entry.state = EntryState::kVanished;
  } else if (const Bytes payload = dump.value().AsBytes(); payload.size() > options_.max_value_bytes) {
    entry.state = EntryState::kTooLarge;
    entry.size = payload.size();
  } else {
    entry.payload = payload;
    if (after.value() != kNoExpiry) entry.expires_at_ms = after.value();
  }
  bytes_in_flight_ -= slot.size;
  Finish(slot);
  return {};
}

Result<redis::Reply> ScanSource::ReceiveFor(uint64_t slot) {
  Result<redis::Reply> reply = connection_.Receive();
  if (reply.ok() && reply.value().IsError()) {
    return ForKey(connection_.ToError(reply.value()), At(slot).entry);
  }
  return reply;
}

// The answer to AskExpiry: absolute in milliseconds, kNoExpiry or kNoKey.
Result<int64_t> ScanSource::ReceiveExpiry(uint64_t slot) {
  int64_t now_ms = 0;
  if (!has_pexpiretime_) {
    Result<redis::Reply> time = ReceiveFor(slot);
    if (!time.ok()) return time.error();
    int64_t seconds = 0;
    int64_t microseconds = 0;
    if (time.value().size() != 2 || !ParseInteger(time.value().element(0), seconds) ||
        !ParseInteger(time.value().element(1), microseconds)) {
      return UnknownReply("TIME");
    }
    now_ms = seconds * 1000 + microseconds / 1000;
  }
  Result<redis::Reply> expiry = ReceiveFor(slot);
  if (!expiry.ok()) return expiry.error();
  if (!expiry.value().IsInteger()) return UnknownReply(has_pexpiretime_ ? "PEXPIRETIME" : "PTTL");
  const int64_t value = expiry.value().AsInteger();
  return value < 0 ? value : now_ms + value;
}

bool ScanSource::SameExpiry(int64_t before, int64_t after) const {
  if (before == after) return true;
  return !has_pexpiretime_ && before >= 0 && after >= 0 &&
         std::max(before, after) - std::min(before, after) <= kExpiryToleranceMs;
}

Error ScanSource::ForKey(Error error, const Entry& entry) const {
  error.detail += (error.detail.empty() ? "" : " ") + ("Database " + std::to_string(entry.db) + ", key \"") +
                  Printable(entry.key) + "\".";
  return error;
}

Error ScanSource::UnknownReply(const char* command) const {
  return {ErrorCode::kProtocol,
          "Redis at " + connection_.address() + " answered " + command + " in an unknown form",
          {},
          {}};
}

}  // namespace prm::source
