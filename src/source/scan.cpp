#include "source/scan.h"

#include <algorithm>
#include <new>
#include <utility>

#include "core/printable.h"

namespace prm::source {

namespace {

// Redis gives a string that grows by APPEND twice the memory it needs, and rounds up: a key and value of n
// bytes take less than this many times n.
constexpr uint64_t kMostMemoryPerByte = 4;

// If few keys are small strings, one in so many is still asked by GETRANGE.
constexpr uint64_t kSampleEvery = 32;

// If Redis evicts keys when its memory is full, replies must fit into the free memory. At most this share of
// it is asked for at a time: DUMP holds a value twice while it replies, and the application keeps writing.
constexpr int64_t kHeadroomShare = 8;
// With less free memory even reading names could evict keys.
constexpr int64_t kLeastHeadroom = 1024 * 1024;
// The reply to SCAN counts too: this many bytes per name.
constexpr int64_t kBytesPerName = 128;

// What Redis does for a scan before it looks at other clients. With half of it the session would have to look
// at its answers so often that runs take longer.
constexpr std::chrono::microseconds kTurn{80};

// So many turns are under way: while the answers to one are read Redis needs others. Over a network there are
// as many more as it takes to keep Redis busy.
constexpr size_t kTurns = 4;

// What Redis takes for commands, measured with 7.0 on two cores of an Intel Xeon: docs/performance.md.
constexpr std::chrono::microseconds kExpiryTime{1};
constexpr std::chrono::microseconds kSizeTime{1};
constexpr std::chrono::microseconds kValueTime{2};
constexpr uint64_t kBytesPerMicrosecond = 1024;

// If Proceed is called less often, Redis would be without work for much of the time.
constexpr std::chrono::microseconds kProceedsEvery{300};

// In so many batches, one after the other. The first one prepares what others have, and any can wait for a
// lock.
constexpr int kSeldomBatches = 2;

uint64_t BytesOf(const Entry& entry) { return entry.key.size() + PayloadSize(entry); }

// Whether INFO is that of the one process of Redis or Valkey whose keys are read. A proxy before several
// servers, as managed services have them, reports no build id, or one of zeros; other servers that speak the
// protocol name themselves.
bool SpeaksForItself(const redis::ServerInfo& info) {
  for (const char* relative : {"dragonfly_version", "kvrocks_version", "garnet_version", "mvcc_depth"})
    if (!info.Get(relative).empty()) return false;
  const bool is_other = info.Get("server_name").empty() != info.Get("valkey_version").empty();
  return IsRunId(info.run_id()) && !is_other &&
         info.Get("redis_build_id").find_first_not_of('0') != Bytes::npos;
}

}  // namespace

ScanSource::ScanSource(redis::Connection& connection, const ScanOptions& options, KeyFilter& filter)
    : connection_(connection),
      options_(options),
      filter_(filter),
      rate_(options.max_rate),
      has_short_turns_(options.lets_proceed),
      recent_(RandomSipKey()) {}

Result<std::unique_ptr<ScanSource>> ScanSource::Open(redis::Connection& connection,
                                                     const ScanOptions& options, KeyFilter& filter,
                                                     const std::string& position) {
  std::unique_ptr<ScanSource> source(new ScanSource(connection, options, filter));
  PRM_RETURN_IF_ERROR(source->Prepare(position));
  return source;
}

bool ScanSource::HasCursorShares(const redis::ServerInfo& info) {
  const Bytes mode = info.Get("redis_mode").empty() ? info.Get("server_mode") : info.Get("redis_mode");
  if (!SpeaksForItself(info) || mode != "standalone") return false;
  const std::string valkey(info.Get("valkey_version"));
  // A table with few keys has a single bucket since Valkey 8.1.
  return valkey.empty() || valkey.compare(0, 2, "7.") == 0 || valkey.compare(0, 4, "8.0.") == 0;
}

Status ScanSource::Prepare(const std::string& position) {
  std::vector<int>& databases = options_.databases;
  std::sort(databases.begin(), databases.end());
  databases.erase(std::unique(databases.begin(), databases.end()), databases.end());
  if (databases.empty() || databases.front() < 0 || options_.batch_keys == 0 || options_.scan_count <= 0 ||
      !options_.share.IsValid() || !options_.names.IsValid() || options_.readers < 1) {
    return Error{ErrorCode::kInvalidArgument, "invalid options of a scan", {}, {}};
  }

  const Result<redis::ServerInfo> info = redis::FetchInfo(connection_);
  if (!info.ok() && !IsMissingCommand(info.error())) return info.error();
  if (info.ok() && IsRunId(info.value().run_id()) && !connection_.gate().Quotes(info.value().run_id()))
    run_id_ = info.value().run_id();
  if (info.ok()) PRM_RETURN_IF_ERROR(FitHeadroom(info.value()));
  may_be_calm_ = !run_id_.empty() && SpeaksForItself(info.value());
  if (may_be_calm_ && options_.listed == nullptr) OpenNamesLink();

  // New in Redis 7.2. Without it reading makes keys look recently used, which affects eviction.
  const Clock::time_point asked = Clock::now();
  const Result<redis::Reply> no_touch = connection_.Command({"CLIENT", "NO-TOUCH", "ON"});
  Clock::duration round_trip = Clock::now() - asked;
  if (!no_touch.ok() && !IsMissingCommand(no_touch.error())) return no_touch.error();

  const Result<ServerAbilities> server = FindAbilities(connection_, info.ok() ? &info.value() : nullptr);
  if (!server.ok()) return server.error();
  server_ = server.value();
  expiries_.emplace(connection_, server_.has_pexpiretime);
  values_.emplace(connection_, server_,
                  std::min({kPieceBytes, options_.bytes_in_flight, options_.max_reply_bytes}),
                  options_.max_value_bytes, options_.make_spool);
  const Clock::time_point asked_again = Clock::now();
  const Result<bool> getrange = MayUse(connection_, {"GETRANGE", "", "0", "0"});
  round_trip = std::min(round_trip, Clock::now() - asked_again);
  connection_.AllowTurns(kTurns + static_cast<size_t>(round_trip / kTurn));
  if (!getrange.ok()) return getrange.error();
  has_getrange_ = getrange.value();

  position_ = {run_id_, databases.front(), options_.share.Start(), false};
  cursor_ = position_.cursor;
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
  const ScanPosition& begun = parsed.value();
  if (!begun.db_done && begun.cursor != cursor_ && !options_.share.GoesOnAt(begun.cursor)) {
    return Error{ErrorCode::kInvalidArgument,
                 "scan position is not in the share of the keys that is to be read",
                 "The position is \"" + Printable(position) + "\".",
                 {}};
  }
  db_index_ = static_cast<size_t>(db - databases.begin()) + (begun.db_done ? 1 : 0);
  if (!begun.db_done) cursor_ = begun.cursor;
  position_ = begun;
  if (options_.listed != nullptr && !begun.db_done && !FindListedPage()) options_.listed = nullptr;
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
                     " kB below maxmemory and evicts keys when it is full. Unread replies count towards "
                     "that, so reading would evict keys.",
                 "Raise it during the run: CONFIG SET maxmemory " +
                     std::to_string(*info.maxmemory() - *headroom + needed) + "."};
  }
  const int64_t share = *headroom / kHeadroomShare / options_.readers;
  options_.bytes_in_flight = std::min(options_.bytes_in_flight, static_cast<uint64_t>(share));
  options_.max_reply_bytes = std::min(options_.max_reply_bytes, static_cast<uint64_t>(share));
  options_.scan_count = std::clamp(static_cast<long>(share / kBytesPerName), 1L, options_.scan_count);
  return {};
}

Result<bool> ScanSource::Next(Batch& batch) {
  if (dead_) return *dead_;
  if (lacked_memory_) throw std::bad_alloc();
  if (returned_at_ && options_.lets_proceed) {
    const bool was_often = Clock::now() - *returned_at_ < kProceedsEvery * (proceeded_ + 1);
    seldom_ = was_often ? 0 : seldom_ + 1;
    has_short_turns_ = seldom_ < kSeldomBatches;
  }
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
  returned_at_ = Clock::now();
  proceeded_ = 0;
  dead_.reset();
  if (!status.ok()) dead_ = status.error();  // of no concern to this batch
  return advanced;
}

void ScanSource::Proceed() noexcept {
  if (dead_ || lacked_memory_) return;
  ++proceeded_;
  try {
    connection_.Proceed(MostReplyBytes());
    WalkAhead();
  } catch (...) {  // an error with words would need memory, too
    lacked_memory_ = true;
  }
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
    if (page_ends_.empty()) return false;
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
    if (HasNames()) PRM_RETURN_IF_ERROR(AnswerScan());
    if (PlanDumps() && !NamesGoFirst()) PlanGetranges();
    if (!slots_.empty() && slots_.front().stage == Stage::kUnproved && infos_.empty() && !NamesAreDue())
      AskInfo(false);
    if (!slots_.empty() && slots_.front().stage == Stage::kInPieces) {
      PRM_RETURN_IF_ERROR(ReadInPieces());
    } else if (!requests_.empty()) {
      PRM_RETURN_IF_ERROR(Answer());
    } else if (scanning_) {
      PRM_RETURN_IF_ERROR(AnswerScan());
    } else if (db_index_ < options_.databases.size()) {  // names are left, but the ceiling holds them back
      connection_.waiter().Wait(nullptr, 0, rate_.WaitMs());
    } else {
      break;
    }
  }
  return {};
}

// Keeps Redis busy while the caller is. Names, GETRANGE, sizes and values each need the answers to what goes
// before, so kBatchesAhead are under way, and each is taken one step further here. Replies belong to requests
// of a batch ago, so there is no wait, unless Redis would run out of values to read.
Status ScanSource::WorkAhead() {
  const auto is_next = [this] {
    const Command command = requests_.front().command;
    return asked_before_ > 0 ||
           (command == Command::kScan ? next_named_ == end_slot() : !IsForValue(command));
  };
  while (!requests_.empty() && is_next() && held_bytes_ < options_.bytes_in_flight)
    PRM_RETURN_IF_ERROR(Answer());
  while (slots_.size() < kBatchesAhead * options_.batch_keys && NamesHaveCome())
    PRM_RETURN_IF_ERROR(AnswerScan());
  if (PlanDumps()) PlanGetranges();
  AskInfoNowAndThen();
  PlanNames();
  connection_.Flush();
  asked_before_ = requests_.size();
  return {};
}

// The value that the caller needs next goes first; no other overtakes it: false if bytes_in_flight allows no
// more.
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
  for (const uint64_t end = EndOfValues(); next_named_ < end; ++next_named_) {
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

// Up to which slot values may be asked for. Those of a page wait until it has come, as a batch has pages that
// have.
uint64_t ScanSource::EndOfValues() const {
  if (page_ends_.empty()) return first_slot_;
  return std::min(page_ends_.back().end, first_slot_ + kValuesAhead * options_.batch_keys);
}

// How many bytes of values may be held beside those in slots_ while the caller is busy.
uint64_t ScanSource::MostReplyBytes() const {
  return options_.bytes_in_flight - std::min(held_bytes_ + bytes_in_steps_, options_.bytes_in_flight);
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
  EndTurnAfter(kSizeTime);
}

void ScanSource::AskValue(Command command, uint64_t number) {
  Slot& slot = At(number);
  const std::string& key = slot.entry.key;
  Request request{command, number, command == Command::kDump && asks_time_};
  request.expiry_reads = slot.needs_expiries ? ExpiryReads::kTwice : expiry_reads_;
  if (request.expiry_reads != ExpiryReads::kTwice) unproved_.push_back(number);
  ++asked_since_info_;
  if (request.expiry_reads == ExpiryReads::kTwice) expiries_->Ask(key);
  if (command == Command::kGetrange) {
    connection_.Append({"GETRANGE", key, "0", std::to_string(kProbeBytes - 1)});
  } else {
    ++slot.reads;
    if (request.with_time) connection_.Append({"TIME"});
    connection_.Append({"DUMP", key}, {options_.max_value_bytes, true});
  }
  if (request.expiry_reads != ExpiryReads::kNone) expiries_->Ask(key);
  requests_.push_back(request);
  const uint64_t bytes = command == Command::kDump ? slot.size : 0;
  EndTurnAfter(kValueTime + static_cast<int>(request.expiry_reads) * kExpiryTime +
               std::chrono::microseconds(bytes / kBytesPerMicrosecond));
}

// Counts what has just been asked for, and takes Redis that long.
void ScanSource::EndTurnAfter(std::chrono::microseconds time) {
  turn_ += time;
  if (!has_short_turns_ || turn_ < kTurn) return;
  connection_.EndTurn();
  turn_ = {};
}

}  // namespace prm::source
