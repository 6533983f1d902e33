// The names of a scan, page by page, and where a share of them ends.
#include <algorithm>
#include <array>
#include <utility>

#include "source/scan.h"

namespace prm::source {

namespace {

// The number of names that are looked for ahead: see RecentNames.
constexpr size_t kNamesAhead = 16;

// Where names have a connection of their own. Redis takes about a millisecond for so many names.
constexpr long kNamesOfPage = 1000;
constexpr long kNamesOfShortStep = 100;

// After so many replies to other commands it is time to see whether names have arrived: the look costs a
// system call.
constexpr int kLooksSkipped = 32;

// With so many requests without an answer names go first: see NamesGoFirst.
constexpr size_t kRequestsBeforeNames = 500;

}  // namespace

// Opens the connection for names if it leads to the same process of Redis.
void ScanSource::OpenNamesLink() {
  Result<std::unique_ptr<redis::Connection>> link = connection_.OpenAnother();
  if (!link.ok()) return;
  const Result<redis::ServerInfo> info = redis::FetchInfo(*link.value());
  if (info.ok() && info.value().run_id() == run_id_) names_link_ = std::move(link.value());
}

// Looks now and then whether names have arrived over their own connection, and lets values proceed.
bool ScanSource::HasNames() {
  if (++looks_skipped_ < kLooksSkipped) return false;
  looks_skipped_ = 0;
  connection_.Proceed(MostReplyBytes());
  return NamesHaveCome();
}

// Whether AnswerScan has names, or an error, at once.
bool ScanSource::NamesHaveCome() {
  return scanning_ && names_link_ != nullptr && (!steps_.empty() || names_link_->HasArrived());
}

// SCAN walks on, though the names of the step before have not been taken. The answer to SELECT comes first.
void ScanSource::WalkAhead() {
  if (names_link_ == nullptr || options_.max_rate > 0 || edge_ || names_link_->pending() != 1 ||
      names_in_steps_ >= options_.batch_keys ||
      slots_.size() + names_in_steps_ >= kBatchesAhead * options_.batch_keys ||
      held_bytes_ + bytes_in_steps_ >= options_.bytes_in_flight)
    return;
  std::optional<redis::Reply> reply = names_link_->TakeArrived();
  if (!reply) return;
  Step& step = steps_.emplace_back(ToStep(std::move(*reply)));
  // AnswerScan says what is wrong with it.
  const Bytes cursor = step.reply.size() == 2 ? step.reply.element(0).String().value_or("") : Bytes();
  const bool goes_on =
      IsCursor(cursor) && cursor != "0" &&
      (options_.share.bits == 0 || options_.share.IsLast() || options_.share.GoesOnAt(cursor));
  if (goes_on) AskNames(cursor);
  for (size_t i = 0; i < step.names; ++i)
    step.bytes += step.reply.element(1).element(i).String().value_or("").size();
  names_in_steps_ += step.names;
  bytes_in_steps_ += step.bytes;
}

long ScanSource::NamesOfPage() const {
  return names_link_ != nullptr ? std::min(options_.scan_count, kNamesOfPage) : options_.scan_count;
}

// SCAN stops at the first bucket with which a step has as many names as were asked for. So a page ends there
// whatever its steps are.
void ScanSource::AskNames(Bytes cursor) {
  asked_names_ = NamesOfPage() - static_cast<long>(scanned_);
  if (names_link_ != nullptr && has_short_turns_) asked_names_ = std::min(asked_names_, kNamesOfShortStep);
  redis::Connection& link = names_link_ != nullptr ? *names_link_ : connection_;
  link.Append({"SCAN", cursor, "COUNT", std::to_string(asked_names_)}, kNamesLimit);
  if (names_link_ != nullptr) link.Flush();
}

// In the order in which answers to SCAN come. A page also ends where there are few names in many buckets,
// and with each step over a connection that values share: a proxy may take COUNT as it likes.
ScanSource::Step ScanSource::ToStep(redis::Reply reply) {
  const uint64_t names = reply.size() == 2 ? reply.element(1).size() : 0;
  scanned_ += names;
  const bool ends = names_link_ == nullptr || scanned_ >= static_cast<uint64_t>(NamesOfPage()) ||
                    names < static_cast<uint64_t>(asked_names_) / 2;
  if (ends) scanned_ = 0;
  return {std::move(reply), names, 0, ends};
}

// Whether pages with as many names as a batch may have wait to be returned. Where few names are wanted this
// bounds how far SCAN is ahead of the position.
bool ScanSource::HoldsBatchOfNames() const {
  return page_ends_.size() * static_cast<size_t>(NamesOfPage()) >= options_.batch_names;
}

// Whether names of the next batch are lacking, and have been asked for over their own connection.
bool ScanSource::NamesAreDue() const {
  return names_link_ != nullptr && scanning_ && slots_.size() < options_.batch_keys && !HoldsBatchOfNames();
}

// Whether Redis has enough to do for now: it takes a step of SCAN and what another connection has sent in
// turns, so that names would come no faster than the values of those before.
bool ScanSource::NamesGoFirst() const {
  return names_link_ != nullptr && scanning_ && requests_.size() >= kRequestsBeforeNames;
}

void ScanSource::PlanNames() {
  if (scanning_ || db_index_ == options_.databases.size()) return;
  if (!selected_) {
    // Keys of the database before may have to be read again, which must not happen in this one.
    if (unfinished_ > 0) return;
    recent_.Clear();
    connection_.Append({"SELECT", std::to_string(options_.databases[db_index_])});
    requests_.push_back({Command::kSelect, 0});
    if (names_link_ != nullptr)
      names_link_->Append({"SELECT", std::to_string(options_.databases[db_index_])});
    selected_ = true;
    scanned_ = 0;
    activity_.reset();
    activity_db_ = options_.databases[db_index_];
    expiry_reads_ = ExpiryReads::kTwice;
    if (may_be_calm_) AskInfo(true);
  } else if (!page_ends_.empty() && (slots_.size() >= kBatchesAhead * options_.batch_keys ||
                                     held_bytes_ >= options_.bytes_in_flight)) {
    return;
  }
  if (options_.listed != nullptr) {
    do {
      TakeListed();
    } while (selected_ && slots_.size() < options_.batch_keys && held_bytes_ < options_.bytes_in_flight);
    return;
  }
  if (rate_.WaitMs() > 0 || (!page_ends_.empty() && HoldsBatchOfNames())) return;
  const std::string& cursor = edge_ ? edge_->cursor : cursor_;
  AskNames(cursor);
  if (names_link_ == nullptr) requests_.push_back({Command::kScan, 0});
  scanning_ = true;
}

// Finds the page that begins at the cursor. False: the list does not tell.
bool ScanSource::FindListedPage() {
  // The last page of a database ends with the cursor that the first begins with.
  if (cursor_ == options_.share.Start()) return true;
  const std::vector<NamesPage>& pages = options_.listed->pages;
  const auto before = std::find_if(pages.begin(), pages.end(), [&](const NamesPage& page) {
    return page.db == options_.databases[db_index_] && page.cursor == cursor_;
  });
  if (before == pages.end()) return false;
  listed_page_ = static_cast<size_t>(before - pages.begin()) + 1;
  return true;
}

void ScanSource::TakeListed() {
  const std::vector<NamesPage>& pages = options_.listed->pages;
  const int db = options_.databases[db_index_];
  while (listed_page_ < pages.size() && pages[listed_page_].db < db) ++listed_page_;
  if (listed_page_ == pages.size() || pages[listed_page_].db > db) return EndPage(true);
  const NamesPage& page = pages[listed_page_++];
  size_t begin = 0;
  for (const size_t end : page.ends) {
    const Bytes name = Bytes(page.bytes).substr(begin, end - begin);
    TakeName(name, recent_.Look(name));
    begin = end;
  }
  taken_ += page.ends.size();
  cursor_ = page.cursor;
  EndPage(cursor_ == "0");
}

// The answer to SCAN, and before it that to SELECT, which the other connection is asked, too.
Result<ScanSource::Step> ScanSource::ReceiveNames() {
  redis::Connection& link = names_link_ != nullptr ? *names_link_ : connection_;
  if (!steps_.empty()) {
    Step step = std::move(steps_.front());
    steps_.pop_front();
    names_in_steps_ -= step.names;
    bytes_in_steps_ -= step.bytes;
    return step;
  }
  while (names_link_ != nullptr && link.pending() > 1) {
    const Result<redis::Reply> selected = link.Receive();
    if (!selected.ok()) return selected.error();
    if (selected.value().IsError()) return link.ToError(selected.value());
  }
  Result<redis::Reply> reply = link.Receive();
  if (!reply.ok()) return reply.error();
  return ToStep(std::move(reply.value()));
}

Status ScanSource::AnswerScan() {
  const Result<Step> received = ReceiveNames();
  if (!received.ok() && names_link_ != nullptr) {
    // Redis may close a connection that was idle for long. The names are asked for again, over the other one.
    names_link_.reset();
    scanning_ = false;
    return {};
  }
  scanning_ = !steps_.empty() || (names_link_ != nullptr && names_link_->pending() > 0);
  if (!received.ok()) return ForNames(received.error());
  const redis::Reply& reply = received.value().reply;
  if (reply.IsError()) return connection_.ToError(reply.ErrorText(), "SCAN");
  const Bytes cursor = reply.element(0).String().value_or("");
  const redis::ReplyView names = reply.element(1);
  if (reply.size() != 2 || !IsCursor(cursor) || !names.IsArray()) return connection_.UnknownReply("SCAN");
  for (size_t i = 0; i < names.size(); ++i) {
    if (!names.element(i).IsString()) return connection_.UnknownReply("SCAN");
  }
  rate_.Take(names.size());
  taken_ += names.size();
  if (options_.share.bits > 0) {
    PRM_RETURN_IF_ERROR(CheckOrder(cursor));
    if (edge_) {
      LookBeyond(cursor, names);
      return {};
    }
    if (!options_.share.IsLast() && !options_.share.GoesOnAt(cursor)) {
      BeginEdge(cursor, names);
      return {};
    }
  }
  cursor_ = cursor;
  const bool ends = cursor_ == "0";
  if (!ends) {  // Redis walks on while the names are looked at
    PlanNames();
    connection_.Flush();
  }
  std::array<Hash128, kNamesAhead> ahead;
  for (size_t i = 0; i < names.size() + kNamesAhead; ++i) {
    Hash128& hash = ahead[i % kNamesAhead];
    if (i >= kNamesAhead) TakeName(*names.element(i - kNamesAhead).String(), hash);
    if (i < names.size()) hash = recent_.Look(*names.element(i).String());
  }
  if (ends || received.value().ends_page) EndPage(ends);
  return {};
}

// Whoever scans in another order than Redis, such as a proxy that puts a server's number into its cursors, is
// found out by the share that ends with the table.
Status ScanSource::CheckOrder(Bytes cursor) const {
  const std::optional<uint64_t> from = ScanOrder(edge_ ? edge_->cursor : cursor_);
  const std::optional<uint64_t> to = ScanOrder(cursor);
  if (cursor == "0" || (from && to && *to > *from)) return {};
  return Error{ErrorCode::kProtocol,
               "Redis at " + connection_.address() + " does not scan in Redis' order",
               "Its keys cannot be read in shares of cursors.",
               {}};
}

void ScanSource::BeginEdge(Bytes cursor, const redis::ReplyView& names) {
  Edge& edge = edge_.emplace();
  for (size_t i = 0; i < names.size(); ++i) edge.names.emplace_back(*names.element(i).String());
  edge.cursor = options_.share.NextStart();
  edge.end = *ScanOrder(cursor);
  if (cursor == edge.cursor) EndShare();
}

void ScanSource::LookBeyond(Bytes cursor, const redis::ReplyView& names) {
  for (size_t i = 0; i < names.size(); ++i) edge_->beyond.emplace(*names.element(i).String());
  edge_->cursor = cursor;
  if (cursor == "0" || (edge_->end != 0 && *ScanOrder(cursor) >= edge_->end)) EndShare();
}

void ScanSource::EndShare() {
  const Edge edge = *std::exchange(edge_, std::nullopt);
  for (const std::string& name : edge.names) {
    if (edge.beyond.count(name) > 0)
      ++duplicates_;
    else
      TakeName(name, recent_.Look(name));
  }
  EndPage(true);
}

void ScanSource::EndPage(bool db_done) {
  if (options_.end_page) options_.end_page(db_done ? "0" : cursor_);
  if (db_done) cursor_ = options_.share.Start();
  page_ends_.push_back({end_slot(), std::exchange(taken_, 0),
                        ScanPosition{run_id_, options_.databases[db_index_], cursor_, db_done}});
  if (db_done) {
    ++db_index_;
    selected_ = false;
  }
}

void ScanSource::TakeName(Bytes name, const Hash128& hash) {
  if (!options_.names.Contains(name)) return;
  if (!recent_.Insert(hash)) {
    ++duplicates_;
    return;
  }
  const int db = options_.databases[db_index_];
  const KeyDecision decision = filter_.Classify(db, name);
  if (decision.interest == Interest::kIgnore) return;
  Slot& slot = slots_.emplace_back();
  slot.entry.route = decision.route;
  slot.entry.db = db;
  slot.entry.key = name;
  held_bytes_ += name.size();
  if (decision.interest == Interest::kNameOnly) {
    slot.entry.state = EntryState::kNameOnly;
    slot.stage = Stage::kDone;
    return;
  }
  ++unfinished_;
}

}  // namespace prm::source
