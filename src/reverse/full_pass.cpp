// All rows of a mapping, and then all keys of its pattern, are written to Redis.
#include "mapping/live_run.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "reverse/reverse_feed.h"
#include "reverse/row_faults.h"
#include "source/cluster_walk.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr char kKeysAtOnce[] = "1000";
constexpr int64 kStepMs = 100;  // then other mappings have their turn
constexpr long kLookAgainMs = 200;
constexpr int64 kScanAgainMs = 1000;  // slots that are being moved
constexpr int64 kPatienceWithLiveMs = 5000;

// Unlike for kFollowsRedis, not when it was stopped: the families are PostgreSQL's, and their rows are not to
// wait for somebody who may never start it again.
bool IsFollowed(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             "SELECT EXISTS (SELECT FROM redis_migrate.background_run WHERE migration = $1 AND live AND "
             "wanted)",
             {SqlParam::Text(migration)})[0]
      .Bool(0);
}

// Whether a process of this database applies the changes of the migration.
bool IsServed(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT EXISTS (
                       SELECT
                       FROM redis_migrate.run AS r, pg_stat_get_activity(r.pid) AS a
                       WHERE r.run_id = )sql" PRM_LIVE_RUN
             " AND r.pid = a.pid AND a.datid = $2 AND a.backend_start <= r.updated_at)",
             {SqlParam::Text(migration), SqlParam::OidOf(MyDatabaseId)})[0]
      .Bool(0);
}

}  // namespace

struct ReverseFeed::Scan {
  std::unique_ptr<ServerConnection> server;  // if it is no cluster
  std::string cursor = {};                   // empty: no node of a cluster was entered

  std::unique_ptr<ClusterResources> resources = nullptr;
  std::unique_ptr<source::ClusterWalk> walk = nullptr;
  redis::Slots slots = {};  // of the node that was entered
  uint64_t epoch = 0;
  int64 progress_ms = 0;  // when slots were last scanned
  int64 patience_ms = 0;  // with those that are being moved
};

void ReverseFeed::EndPass(Fed &fed) {
  fed.pass.reset();
  fed.scan.reset();
}

// A Redis that has come back without keys, or with older ones, may have been written to since. Once rows
// cover that, nothing else tells of it; until then live sync finds it in the snapshot that it takes, and
// notes late writes.
bool ReverseFeed::MayBegin(Pass &pass) {
  if (pass.may_begin) return true;
  bool const have_ended = pass.before.HaveEnded();
  bool const is_followed = have_ended && IsFollowed(migration_);
  Spi::Commit();
  if (!have_ended) return false;
  if (is_followed) {
    if (!pass.seen) {
      pass.asked_ms = pass.served_ms = pg::MonotonicMs();
      pass.seen.emplace(migration_, source_, GetUserId());
    }
    bool const is_patient = pg::MonotonicMs() - pass.asked_ms < kPatienceWithLiveMs;
    // A move of a slot may stand open for long, which is to hold up nothing but the changes of that slot.
    if (!pass.seen->IsReached() && (is_patient || !pass.seen->IsReachedButForKeys())) {
      if (!is_patient)
        SetProblem(
            pg::Problem{ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        "all rows are to be written, but live sync has not seen yet what Redis has: see "
                        "redis_migrate.live_sync"});
      if (IsServed(migration_)) pass.served_ms = pg::MonotonicMs();
      Spi::Commit();
      is_unserved_ |= pg::MonotonicMs() - pass.served_ms >= kPatienceWithLiveMs;
      return false;
    }
  }
  return pass.may_begin = true;
}

// Some of all rows; in the end there are all keys of the pattern, whose rows may be gone. What changes
// meanwhile is noted again. Returns 0 while it waits for transactions or live sync, which it looks for as it
// does for changes.
int64 ReverseFeed::SendMoreRows(Fed &fed) {
  if (!fed.pass) {
    EndPass(fed);
    fed.pass.emplace(Pass{fed.outbox.BeginFull()});
  }
  Pass &pass = *fed.pass;
  if (!MayBegin(pass)) {
    waits_ = true;
    return 0;
  }
  int64 const until_ms = pg::MonotonicMs() + kStepMs;
  bool has_more = true;
  while (has_more && pg::MonotonicMs() < until_ms)
    has_more = fed.reverse.ledger ? SendLedgerPage(fed) : SendPage(fed);
  if (has_more) return 1;
  EndPass(fed);
  // Where queries may skip keys, some have never had rows. The ledger has those that had some.
  fed.unscanned =
      fed.reverse.mapping.no_row == "skip" || fed.reverse.ledger ? redis::Slots() : ~redis::Slots();
  fed.open.reset();
  fed.scan_at_ms = 0;
  fed.outbox.NoteUnscanned(fed.unscanned);
  Spi::Commit();
  return 1;
}

// Returns whether there is more.
bool ReverseFeed::SendPage(Fed &fed) {
  std::vector<RowName> names;
  {
    pg::SnapshotScope snapshot;
    names = ReadReverseNames(fed.reverse, fed.limit, fed.pass->last);
  }
  Spi::Commit();
  SendNames(fed, {names.begin(), names.end()});
  return !fed.pass->last.empty();
}

// Returns 1 if it goes on.
int64 ReverseFeed::RemoveKeysWithoutRows(Fed &fed) {
  if (fed.unscanned.none() || pg::MonotonicMs() < fed.scan_at_ms) return 0;
  redis::Slots const before = fed.unscanned;
  if (sender_->is_cluster())
    ScanCluster(fed);
  else
    ScanServer(fed);
  if (fed.scan) return 1;
  fed.scan_at_ms = pg::MonotonicMs() + kScanAgainMs;
  return fed.unscanned == before ? 0 : 1;
}

void ReverseFeed::NoteScanned(Fed &fed, const redis::Slots &slots) {
  fed.unscanned &= ~slots;
  fed.outbox.NoteUnscanned(fed.unscanned);
  Spi::Commit();
}

void ReverseFeed::ScanServer(Fed &fed) {
  if (!fed.scan) {
    fed.scan = std::make_shared<Scan>(Scan{std::make_unique<ServerConnection>(server_, GetUserId())});
    Spi::Commit();
    pg::ValueOrThrow((*fed.scan->server)->Command({"SELECT", std::to_string(fed.reverse.db)}));
  }
  if (!ScanMore(fed, **fed.scan->server, ~redis::Slots())) return;
  fed.scan.reset();
  NoteScanned(fed, ~redis::Slots());
}

// Node by node, until each slot was at one of them as long as that was scanned. Leaves those that are being
// moved, for which nobody else waits. An error leaves what was scanned before it noted.
void ReverseFeed::ScanCluster(Fed &fed) {
  if (!fed.scan) {
    redis::Deployment deployment = ServerOptions(server_, GetUserId());
    Spi::Commit();
    deployment.read_from = redis::ReadFrom::kMaster;
    fed.scan = std::make_shared<Scan>();
    fed.scan->resources = std::make_unique<ClusterResources>();
    fed.scan->walk = std::make_unique<source::ClusterWalk>(deployment, fed.scan->resources->waiter);
    fed.scan->progress_ms = pg::MonotonicMs();
    fed.scan->patience_ms = fed.open ? 0 : kPatienceMs;
    fed.open.reset();
  }
  Scan &scan = *fed.scan;
  source::ClusterWalk &walk = *scan.walk;
  if (scan.cursor.empty()) {
    pg::ThrowIfError(walk.FindTopology());
    redis::Slots const imported = pg::ValueOrThrow(walk.ImportedSlots());
    auto const slots = walk.EnterNext(~fed.unscanned, imported);
    if (!slots.ok()) {
      int64 const waited_ms = pg::MonotonicMs() - scan.progress_ms;
      if (slots.error().code != ErrorCode::kUnavailable || waited_ms >= kMostMoveMs) pg::ThrowIfError(slots);
      if (waited_ms < scan.patience_ms || fed.unscanned.count() > kMostHeld) return pg::Sleep(kLookAgainMs);
      fed.open = pg::Problem{ERRCODE_CANNOT_CONNECT_NOW,
                             "keys without rows are not looked for yet: " + slots.error().message};
      fed.scan.reset();
      return;
    }
    scan.slots = slots.value();
    scan.epoch = walk.epoch();
  }
  if (!ScanMore(fed, walk.connection(), scan.slots)) return;
  redis::Slots const stable = pg::ValueOrThrow(walk.StableSlots());
  if (walk.epoch() != scan.epoch) return;
  redis::Slots const done = scan.slots & stable & ~pg::ValueOrThrow(walk.ImportedSlots());
  if ((done & fed.unscanned).none()) return;
  NoteScanned(fed, done);
  scan.progress_ms = pg::MonotonicMs();
  if (fed.unscanned.none()) fed.scan.reset();
}

// Some of those keys of the pattern at a server that are in these slots. Returns whether those were all;
// the next call begins anew.
bool ReverseFeed::ScanMore(Fed &fed, redis::Connection &connection, const redis::Slots &slots) {
  const ReverseMapping &reverse = fed.reverse;
  auto const &types = reverse.mapping.types;
  std::string &cursor = fed.scan->cursor;
  if (cursor.empty()) cursor = "0";
  int64 const until_ms = pg::MonotonicMs() + kStepMs;
  do {
    redis::Reply const page = pg::ValueOrThrow(connection.Command(
        {"SCAN", cursor, "MATCH", reverse.pattern.Glob(), "COUNT", kKeysAtOnce}, redis::kLargeReply));
    auto const next = page.element(0).String();
    if (page.size() != 2 || !next || !page.element(1).IsArray())
      throw pg::Failure(connection.UnknownReply("SCAN"));
    cursor = *next;
    std::vector<RowName> found;
    for (size_t i = 0; i < page.element(1).size(); ++i) {
      auto const key = page.element(1).element(i).String();
      if (!key || (!slots.all() && !slots.test(redis::KeySlot(*key)))) continue;
      if (auto name = reverse.NameOf(reverse.db, *key)) found.push_back(std::move(*name));
    }
    std::set<RowName> names;
    if (types)
      for (const RowName &name : found) connection.Append({"TYPE", reverse.KeyOf(name)});
    for (RowName &name : found) {
      if (types) {  // a key of another type is not the mapping's
        redis::Reply const type = pg::ValueOrThrow(connection.Receive());
        if (type.IsError() && connection.ToError(type).code == ErrorCode::kMoved)
          continue;  // so did its slot
        auto const text = type.StatusText();
        if (!text) throw pg::Failure(connection.UnknownReply("TYPE"));
        if (std::find(types->begin(), types->end(), *text) == types->end()) continue;
      }
      names.insert(std::move(name));
    }
    if (names.empty()) continue;
    SendNoted(fed, AddMissing(reverse, names));
  } while (cursor != "0" && pg::MonotonicMs() < until_ms);
  if (cursor != "0") return false;
  cursor.clear();
  return true;
}

std::set<RowName> ReverseFeed::AddMissing(const ReverseMapping &reverse, const std::set<RowName> &names) {
  std::set<RowName> missing = FindWithoutRows(
      reverse, names, [](const ReverseValue &) { return false; }, false);
  std::set<RowName> const rejected = FindRejected(reverse, missing);
  redis::Slots const held = sender_->held();
  for (auto name = missing.begin(); name != missing.end();) {
    std::string const key = reverse.KeyOf(*name);
    if (rejected.count(*name) > 0) {
      name = missing.erase(name);
      continue;
    }
    if (held.test(sender_->SlotOf(key)))
      held_.insert(*name);
    else
      pg::ThrowIfError(sender_->Add(reverse.DbOf(*name), key, {"list"}));
    ++name;
  }
  return missing;
}

}  // namespace prm
