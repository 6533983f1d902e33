#include "live/backfill.h"

#include "connect/outage.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "redis/info.h"
#include "source/key_reply.h"
#include "source/named_keys.h"

namespace prm {

using pg::Spi;
using source::RereadBudget;

namespace {

constexpr char kPageKeys[] = "500";
constexpr int64 kRetryMs = 1000;

redis::ReplicationPoint FetchPoint(redis::Connection &connection) {
  auto const keys = pg::ValueOrThrow(source::NamedKeys::Open(connection, {}));
  return pg::ValueOrThrow(keys->FetchPoint());
}

}  // namespace

Backfill::Backfill(const Migration &migration, const Routing &routing, const LiveRecord &record,
                   const LinkWatch &link, RereadBudget &budget)
    : migration_(migration),
      routing_(routing),
      link_(link),
      budget_(budget),
      patterns_(record.ReadUnfilled()) {
  std::set<std::string> mapped;
  for (const Mapping &mapping : migration.mappings) mapped.insert(mapping.pattern);
  for (const std::string &pattern : patterns_)
    if (mapped.count(pattern) == 0) dropped_.push_back(ParsePattern(pattern));
}

bool Backfill::IsDue() const {
  return !patterns_.empty() && link_.IsStreaming() && pg::MonotonicMs() >= not_before_ms_ &&
         budget_.PauseUs(RereadBudget::NowUs()) == 0;
}

bool Backfill::FindMore(uint64 applied, std::vector<KeyId> &keys) {
  try {
    if (connection_ == nullptr && !Open(applied)) {
      BeginAgain();
      return false;
    }
    if (!databases_.empty()) TakePage(keys);
    if (!databases_.empty()) return false;
    // A master that became a replica meanwhile has other keys than when the scan began.
    if (HasReached(FetchPoint(**connection_), applied)) return true;
    BeginAgain();
  } catch (const pg::Failure &failure) {
    BeginAgain();
    if (!MayComeBack(failure.sqlstate())) throw;
  }
  return false;
}

void Backfill::BeginAgain() {
  connection_.reset();
  not_before_ms_ = pg::MonotonicMs() + kRetryMs;
}

// False: the server does not have the history of the link.
bool Backfill::Open(uint64 applied) {
  connection_ = std::make_unique<ServerConnection>(migration_.server, GetUserId(), link_.nodes());
  Spi::Commit();
  if (!connection_->is_open()) return false;
  redis::ReplicationPoint const point = FetchPoint(**connection_);
  history_ = point.id;
  if (!link_.IsOfServer(point.id) || !HasReached(point, applied)) return false;
  auto const info = redis::FetchInfo(**connection_);
  pg::ThrowIfError(info);
  databases_.clear();
  for (const redis::KeyspaceInfo &keyspace : info.value().Keyspace())
    if (Takes(migration_.databases, keyspace.db)) databases_.push_back(keyspace.db);
  selected_.reset();
  cursor_ = "0";
  return true;
}

bool Backfill::HasReached(const redis::ReplicationPoint &point, uint64 applied) const {
  return point.id == history_ && point.offset >= applied;
}

void Backfill::TakePage(std::vector<KeyId> &keys) {
  int const db = databases_.back();
  redis::Connection &connection = **connection_;
  if (selected_ != db && (db != 0 || selected_))
    pg::ThrowIfError(connection.Command({"SELECT", std::to_string(db)}));
  selected_ = db;
  int64_t const began_us = RereadBudget::NowUs();
  auto const page = connection.Command({"SCAN", cursor_, "COUNT", kPageKeys}, source::kNamesLimit);
  int64_t const ended_us = RereadBudget::NowUs();
  budget_.Spend(0, ended_us - began_us, ended_us);
  if (!page.ok()) throw pg::Failure(source::ForNames(page.error()));
  auto const next = page.value().size() == 2 ? page.value().element(0).String() : std::nullopt;
  if (!next) throw pg::Failure(connection.UnknownReply("SCAN"));
  Match match;
  const redis::ReplyView names = page.value().element(1);
  for (size_t i = 0; i < names.size(); ++i) {
    auto const name = names.element(i).String();
    if (!name) throw pg::Failure(connection.UnknownReply("SCAN"));
    if (IsWanted(db, *name, match)) keys.emplace_back(db, std::string(*name));
  }
  cursor_ = std::string(*next);
  if (cursor_ == "0") databases_.pop_back();
}

bool Backfill::IsWanted(int db, Bytes key, Match &match) const {
  Route const route = routing_.Find(db, key, match);
  if (route.pattern) return patterns_.count(routing_.patterns()[*route.pattern].text()) > 0;
  return std::any_of(dropped_.begin(), dropped_.end(),
                     [&](const KeyPattern &pattern) { return pattern.MatchKey(key, match) == Fit::kFits; });
}

}  // namespace prm
