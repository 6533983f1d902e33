// The names of a scan, page by page, and where a share of them ends.
#include <algorithm>
#include <array>
#include <utility>

#include "source/scan.h"

namespace prm::source {

namespace {

// The number of names that are looked for ahead: see RecentNames.
constexpr size_t kNamesAhead = 16;

// COUNT of SCAN where names have a connection of their own: Redis takes about a millisecond for it. With
// fewer, names of the next batch would not be there in time, as they are taken only while the values of this
// one come in.
constexpr long kNamesOfStep = 1000;

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

// Whether names have arrived over their own connection.
bool ScanSource::HasNames() {
  if (!scanning_ || names_link_ == nullptr || ++looks_skipped_ < kLooksSkipped) return false;
  looks_skipped_ = 0;
  return names_link_->HasArrived();
}

// Whether names of the next batch are lacking, and have been asked for over their own connection. Where few
// are wanted, pages that wait for a proof must not become more than a batch of names.
bool ScanSource::NamesAreDue() const {
  return names_link_ != nullptr && scanning_ && slots_.size() < options_.batch_keys &&
         page_ends_.size() * static_cast<size_t>(kNamesOfStep) < options_.batch_names;
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
    activity_.reset();
    activity_db_ = options_.databases[db_index_];
    expiry_reads_ = ExpiryReads::kTwice;
    if (may_be_calm_) AskInfo(true);
  } else if (slots_.size() >= kBatchesAhead * options_.batch_keys ||
             held_bytes_ >= options_.bytes_in_flight) {
    return;
  }
  if (options_.listed != nullptr) {
    do {
      TakeListed();
    } while (selected_ && slots_.size() < options_.batch_keys && held_bytes_ < options_.bytes_in_flight);
    return;
  }
  if (rate_.WaitMs() > 0) return;
  const std::string& cursor = edge_ ? edge_->cursor : cursor_;
  if (names_link_ != nullptr) {
    const long count = std::min(options_.scan_count, kNamesOfStep);
    names_link_->Append({"SCAN", cursor, "COUNT", std::to_string(count)}, kNamesLimit);
    names_link_->Flush();
  } else {
    connection_.Append({"SCAN", cursor, "COUNT", std::to_string(options_.scan_count)}, kNamesLimit);
    requests_.push_back({Command::kScan, 0});
  }
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
  if (listed_page_ == pages.size() || pages[listed_page_].db > db) return EndPage(0, true);
  const NamesPage& page = pages[listed_page_++];
  size_t begin = 0;
  for (const size_t end : page.ends) {
    const Bytes name = Bytes(page.bytes).substr(begin, end - begin);
    TakeName(name, recent_.Look(name));
    begin = end;
  }
  cursor_ = page.cursor;
  EndPage(page.ends.size(), cursor_ == "0");
}

// The answer to SCAN, and before it that to SELECT, which the other connection is asked, too.
Result<redis::Reply> ScanSource::ReceiveNames() {
  redis::Connection& link = names_link_ != nullptr ? *names_link_ : connection_;
  while (names_link_ != nullptr && link.pending() > 1) {
    Result<redis::Reply> selected = link.Receive();
    if (!selected.ok()) return selected;
    if (selected.value().IsError()) return link.ToError(selected.value());
  }
  return link.Receive();
}

Status ScanSource::AnswerScan() {
  const Result<redis::Reply> received = ReceiveNames();
  if (!received.ok() && names_link_ != nullptr) {
    // Redis may close a connection that was idle for long. The names are asked for again, over the other one.
    names_link_.reset();
    scanning_ = false;
    return {};
  }
  if (!received.ok()) return ForNames(received.error());
  const redis::Reply& reply = received.value();
  if (reply.IsError()) return connection_.ToError(reply.ErrorText(), "SCAN");
  const Bytes cursor = reply.element(0).String().value_or("");
  const redis::ReplyView names = reply.element(1);
  if (reply.size() != 2 || !IsCursor(cursor) || !names.IsArray()) return connection_.UnknownReply("SCAN");
  for (size_t i = 0; i < names.size(); ++i) {
    if (!names.element(i).IsString()) return connection_.UnknownReply("SCAN");
  }
  scanning_ = false;
  rate_.Take(names.size());
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
  EndPage(names.size(), ends);
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
  EndPage(edge.names.size(), true);
}

void ScanSource::EndPage(size_t names, bool db_done) {
  if (options_.end_page) options_.end_page(db_done ? "0" : cursor_);
  if (db_done) cursor_ = options_.share.Start();
  page_ends_.push_back(
      {end_slot(), names, ScanPosition{run_id_, options_.databases[db_index_], cursor_, db_done}});
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
