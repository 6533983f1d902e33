#include "reverse/reverse_feed.h"

#include "mapping/mapping_settings.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/rollback.h"
#include "pg/session_lock.h"
#include "pg/settings.h"
#include "pg/transaction.h"
#include "pg/wait.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kMostNames = 1000;  // of a batch
constexpr long kPauseMs = 20;     // between two looks at an empty outbox
constexpr int64 kHoldMs = 5000;   // a mapping whose row is at fault
constexpr int64 kLookMs = 1000;   // between two looks whether the feed is wanted

// A row, or the reverse query, is at fault.
struct RowFault {
  pg::Problem problem;
  size_t rows;  // that were read
};

redis::WholeValue NoKey() { return {"list", {}, std::nullopt}; }

}  // namespace

LOCKTAG ReverseFeedLock(const std::string &migration) {
  return pg::LockTagOfName(pg::kReverseLocks, migration);
}

ReverseFeed::ReverseFeed(const Migration &migration)
    : migration_(migration.name), server_(migration.server), limit_(kMostNames) {
  std::set<int64> installed;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute("SELECT mapping_id FROM redis_migrate.reverse_mapping WHERE migration = $1",
                             {SqlParam::Text(migration_)});
    for (uint64 i = 0; i < rows.size(); ++i) installed.insert(rows[i].Int8(0));
  }
  if (installed.empty())
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "migration \"" + migration_ + "\" has no reverse feed", "",
                      "SELECT redis_migrate.start_reverse(" + pg::QuoteLiteral(migration_) + ").");
  std::map<std::string, ReverseProblem> problems;
  for (ReverseMapping &reverse : FindReverses(migration, std::nullopt, problems))
    if (installed.erase(reverse.mapping.id) > 0) reverses_.push_back(std::move(reverse));
  if (!installed.empty())
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "a mapping of migration \"" + migration_ + "\" whose changes are noted has no way back any more",
        problems.empty()
            ? ""
            : "Mapping \"" + problems.begin()->first + "\": " + problems.begin()->second.problem + ".",
        "SELECT * FROM redis_migrate.reverse_problems(" + pg::QuoteLiteral(migration_) + ").");
  Spi::Commit();
  sender_ = std::make_unique<ReverseSender>(migration_, server_);
  CompareWithServer();
}

// A server that has an older batch than it has acknowledged, or a newer one than there is, has lost what it
// had, or this server has: only all rows tell.
void ReverseFeed::CompareWithServer() {
  int64 batch = 0, acknowledged = 0;
  {
    pg::AsExtensionOwner as_owner;
    auto rows =
        Spi::Execute("SELECT batch, acknowledged FROM redis_migrate.reverse_feed WHERE migration = $1",
                     {SqlParam::Text(migration_)});
    if (rows.size() > 0) {
      batch = rows[0].Int8(0);
      acknowledged = rows[0].Int8(1);
    }
  }
  int64 const position = sender_->position().value_or(0);
  if (acknowledged > 0 && (position < acknowledged || position > batch))
    for (const ReverseMapping &reverse : reverses_)
      Outbox(reverse.mapping.id)
          .NoteGap(position < acknowledged ? "Redis has lost batches"
                                           : "batches in Redis are not of this server");
  Spi::Commit();
}

void ReverseFeed::Look() {
  for (const ReverseMapping &reverse : reverses_) Outbox(reverse.mapping.id).NotePartitions();
  {
    // Only a bound is reckoned from it: see Outbox.
    pg::AsExtensionOwner as_owner;
    Spi::ExecuteKept(
        R"sql(UPDATE redis_migrate.reverse_mapping AS m
              SET oldest = (SELECT last_value FROM redis_migrate.outbox_outbox_id_seq)
              WHERE m.migration = $1 AND m.oldest + $2 < (SELECT last_value FROM redis_migrate.outbox_outbox_id_seq)
                    AND NOT EXISTS (SELECT FROM redis_migrate.outbox AS o WHERE o.mapping_id = m.mapping_id))sql",
        {SqlParam::Text(migration_), SqlParam::Int8(pg::settings::max_outbox_rows / 8)});
  }
  Spi::Commit();
}

int64 ReverseFeed::SendSome() {
  int64 sent = 0;
  for (const ReverseMapping &reverse : reverses_) {
    auto const held = held_until_ms_.find(reverse.mapping.id);
    if (held != held_until_ms_.end() && pg::MonotonicMs() < held->second) continue;
    try {
      sent += SendSome(reverse);
      if (held != held_until_ms_.end()) held_until_ms_.erase(held);
    } catch (const RowFault &fault) {
      pg::RollBackAfter(fault.problem);
      sender_->Clear();
      if (fault.rows > 1) {  // which one?
        limit_ = 1;
        ++sent;
        continue;
      }
      held_until_ms_[reverse.mapping.id] = pg::MonotonicMs() + kHoldMs;
      problem_ = fault.problem;
    }
  }
  if (held_until_ms_.empty()) problem_.reset();
  return sent;
}

int64 ReverseFeed::SendSome(const ReverseMapping &reverse) {
  bool const needs_full = Outbox(reverse.mapping.id).NeedsFull();
  Spi::Commit();
  if (needs_full) SendAllRows(reverse);
  return SendOutbox(reverse) + (needs_full ? 1 : 0);
}

// One snapshot for the changes and for the rows: what is sent is the state of the rows after them, or later.
int64 ReverseFeed::SendOutbox(const ReverseMapping &reverse) {
  std::vector<int64> ids;
  int64 unfit = 0;
  {
    pg::SnapshotScope snapshot;
    std::vector<Outbox::Change> const changes = Outbox(reverse.mapping.id).Read(limit_);
    std::vector<std::optional<RowName>> names;
    for (const Outbox::Change &change : changes) names.push_back(reverse.Canonical(change.name));
    std::set<RowName> wanted;
    for (const std::optional<RowName> &name : names)
      if (name) wanted.insert(*name);
    untold_ = 0;
    std::set<RowName> const postponed = AddKeys(reverse, wanted);
    for (size_t i = 0; i < changes.size(); ++i)
      if (!names[i] || postponed.count(*names[i]) == 0) ids.push_back(changes[i].id);
    unfit = std::count(names.begin(), names.end(), std::nullopt) + untold_;
  }
  if (ids.empty()) {
    Spi::Commit();
    return 0;
  }
  Send(reverse, ids, unfit);
  return static_cast<int64>(ids.size());
}

// Sends what was added, and forgets the changes that this was about.
void ReverseFeed::Send(const ReverseMapping &reverse, const std::vector<int64> &ids, int64 unfit) {
  CommitDurably(reverse);
  sender_->Send(batch_);
  if (!ids.empty()) Outbox(reverse.mapping.id).Forget(ids);
  {
    pg::AsExtensionOwner as_owner;
    Spi::ExecuteKept("UPDATE redis_migrate.reverse_feed SET acknowledged = $2 WHERE migration = $1",
                     {SqlParam::Text(migration_), SqlParam::Int8(batch_)});
    Spi::ExecuteKept(
        R"sql(UPDATE redis_migrate.reverse_mapping
              SET sent = sent + $2, unfit = unfit + $3, last_sent_at = clock_timestamp(),
                  oldest = coalesce((SELECT outbox_id FROM redis_migrate.outbox WHERE mapping_id = $1 ORDER BY outbox_id LIMIT 1),
                                    (SELECT last_value FROM redis_migrate.outbox_outbox_id_seq))
              WHERE mapping_id = $1)sql",
        {SqlParam::Int8(reverse.mapping.id), SqlParam::Int8(static_cast<int64>(ids.size()) - unfit),
         SqlParam::Int8(unfit)});
  }
  Spi::Commit();
}

// Other sessions may commit with synchronous_commit = off: what their snapshots show may be lost in a crash,
// and must not be in Redis then. This commit is flushed, and with it all before it.
void ReverseFeed::CommitDurably(const ReverseMapping &reverse) {
  pg::SetForTransaction("synchronous_commit", "local");
  bool is_noted = false;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::ExecuteKept(
        R"sql(UPDATE redis_migrate.reverse_feed SET batch = batch + 1
              WHERE migration = $1 AND EXISTS (SELECT FROM redis_migrate.reverse_mapping WHERE mapping_id = $2)
              RETURNING batch)sql",
        {SqlParam::Text(migration_), SqlParam::Int8(reverse.mapping.id)});
    is_noted = rows.size() > 0;
    if (is_noted) batch_ = rows[0].Int8(0);
  }
  Spi::Commit();
  if (!is_noted) throw ReverseStopped(reverse.mapping.name);
}

// Keys that never had rows, because runs have rejected them: Redis alone has their values.
std::set<std::string> ReverseFeed::FindRejected(const ReverseMapping &reverse,
                                                const std::set<RowName> &names) {
  std::vector<std::string> keys;
  for (const RowName &name : names) keys.push_back(reverse.KeyOf(name));
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT DISTINCT x.key_bytes
            FROM redis_migrate.reject AS x JOIN redis_migrate.run AS r USING (run_id)
            WHERE r.migration = $1 AND x.db = $2 AND x.key_bytes = ANY ($3) AND x.settled_at IS NULL)sql",
      {SqlParam::Text(migration_), SqlParam::Int4(reverse.db),
       SqlParam::ByteaArray({keys.begin(), keys.end()})},
      true);
  std::set<std::string> found;
  for (uint64 i = 0; i < rows.size(); ++i) found.emplace(pg::DatumBytes(rows[i].Value(0)));
  return found;
}

std::set<RowName> ReverseFeed::AddKeys(const ReverseMapping &reverse, const std::set<RowName> &all_names) {
  std::set<RowName> postponed, names = all_names;
  // Of such keys Redis alone has the elements that were rejected.
  if (reverse.mapping.atomic == "element" && !names.empty()) {
    std::set<std::string> const rejected = FindRejected(reverse, names);
    for (const RowName &name : all_names)
      if (rejected.count(reverse.KeyOf(name)) > 0) {
        names.erase(name);
        ++untold_;
      }
  }
  if (names.empty()) return postponed;
  int64 bytes = 0;
  std::map<RowName, ReverseValue> values;
  try {
    values = ReadReverseRows(reverse, names, bytes);
  } catch (...) {
    pg::Problem problem = pg::CurrentProblem();
    if (pg::FaultOf(problem.sqlstate) == pg::Fault::kServer) throw;
    if (names.size() == 1)
      problem.message = "key " + reverse.MaskedKeyOf(*names.begin()) + " of mapping \"" +
                        reverse.mapping.name + "\" cannot be written back: " + problem.message;
    throw RowFault{problem, names.size()};
  }
  limit_ = bytes > kMostReverseBytes ? std::max(1, limit_ / 2) : std::min(kMostNames, limit_ * 2);
  for (const RowName &name : names) {
    auto const value = values.find(name);
    if (value == values.end())
      sender_->Add(reverse.db, reverse.KeyOf(name), NoKey());
    else if (value->second && value->second->type.empty())
      ++untold_;
    else if (value->second)
      sender_->Add(reverse.db, reverse.KeyOf(name), *value->second);
    else
      postponed.insert(name);
  }
  return postponed;
}

void ReverseFeed::AddMissing(const ReverseMapping &reverse, const std::set<RowName> &names) {
  int64 bytes = 0;
  std::map<RowName, ReverseValue> const values = ReadReverseRows(reverse, names, bytes);
  std::set<RowName> missing;
  for (const RowName &name : names)
    if (values.count(name) == 0) missing.insert(name);
  std::set<std::string> const rejected = FindRejected(reverse, missing);
  for (const RowName &name : missing)
    if (std::string const key = reverse.KeyOf(name); rejected.count(key) == 0)
      sender_->Add(reverse.db, key, NoKey());
}

// All rows, and then all keys of the pattern, whose rows may be gone. What changes meanwhile is noted again.
void ReverseFeed::SendAllRows(const ReverseMapping &reverse) {
  Outbox const outbox(reverse.mapping.id);
  outbox.BeginFull();
  Spi::Commit();
  for (RowName last;;) {
    std::vector<RowName> names;
    {
      pg::SnapshotScope snapshot;
      names = ReadReverseNames(reverse, limit_, last);
    }
    Spi::Commit();
    for (std::set<RowName> left(names.begin(), names.end()); !left.empty();) {
      {
        pg::SnapshotScope snapshot;
        left = AddKeys(reverse, left);
      }
      Send(reverse, {}, 0);
    }
    if (last.empty()) break;
  }
  // Where queries may skip keys, some have never had rows.
  if (reverse.mapping.no_row != "skip") RemoveKeysWithoutRows(reverse);
  outbox.EndFull();
  Spi::Commit();
}

void ReverseFeed::RemoveKeysWithoutRows(const ReverseMapping &reverse) {
  ServerConnection server(server_, GetUserId());
  pg::ValueOrThrow(server->Command({"SELECT", std::to_string(reverse.db)}));
  auto const &types = reverse.mapping.types;
  std::string cursor = "0";
  do {
    redis::Reply const page = pg::ValueOrThrow(server->Command(
        {"SCAN", cursor, "MATCH", reverse.pattern.Glob(), "COUNT", std::to_string(kMostNames)},
        redis::kLargeReply));
    auto const next = page.element(0).String();
    if (page.size() != 2 || !next || !page.element(1).IsArray())
      throw pg::Failure(server->UnknownReply("SCAN"));
    cursor = *next;
    std::vector<RowName> found;
    for (size_t i = 0; i < page.element(1).size(); ++i)
      if (auto const key = page.element(1).element(i).String())
        if (auto name = reverse.NameOf(*key)) found.push_back(std::move(*name));
    std::set<RowName> names;
    if (types)
      for (const RowName &name : found) server->Append({"TYPE", reverse.KeyOf(name)});
    for (RowName &name : found) {
      if (types) {  // a key of another type is not the mapping's
        redis::Reply const type = pg::ValueOrThrow(server->Receive());
        auto const text = type.StatusText();
        if (!text) throw pg::Failure(server->UnknownReply("TYPE"));
        if (std::find(types->begin(), types->end(), *text) == types->end()) continue;
      }
      names.insert(std::move(name));
    }
    if (names.empty()) continue;
    {
      pg::SnapshotScope snapshot;
      AddMissing(reverse, names);
    }
    Send(reverse, {}, 0);
  } while (cursor != "0");
}

namespace {

void NoteState(const std::string &migration, const char *state, const std::optional<pg::Problem> &problem) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.reverse_feed
            SET state = $2, sqlstate = $3, message = $4, since = clock_timestamp()
            WHERE migration = $1)sql",
      {SqlParam::Text(migration), SqlParam::Text(state),
       SqlParam::OptionalText(problem ? std::optional(problem->SqlState()) : std::nullopt),
       SqlParam::OptionalText(problem ? std::optional(problem->message) : std::nullopt)});
}

// What a feed was begun with: it is to begin anew when this changes.
struct Wanted {
  bool wanted = false;
  std::string definition;
};

Wanted ReadWanted(const std::string &migration) {
  Wanted result;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::ExecuteKept(
        R"sql(SELECT f.wanted, (f.state = 'starting')::text || coalesce((
                         SELECT md5(string_agg(p.*::text || coalesce(q.query, '') || coalesce(m.target_relation::oid::text, ''), '' ORDER BY p.mapping_id))
                         FROM redis_migrate.mapping AS p LEFT JOIN redis_migrate.reverse_mapping AS m USING (mapping_id)
                              LEFT JOIN redis_migrate.reverse_query AS q USING (mapping_id)
                         WHERE p.migration = f.migration), '')
              FROM redis_migrate.reverse_feed AS f
              WHERE f.migration = $1)sql",
        {SqlParam::Text(migration)}, true);
    if (rows.size() > 0) result = {rows[0].Bool(0), rows[0].Text(1)};
  }
  Spi::Commit();
  return result;
}

bool IsDrained(const std::string &migration) {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT NOT EXISTS (SELECT FROM redis_migrate.reverse_mapping AS m
                                      WHERE m.migration = $1
                                            AND (m.in_full_pass
                                                 OR EXISTS (SELECT FROM redis_migrate.outbox AS o WHERE o.mapping_id = m.mapping_id)
                                                 OR EXISTS (SELECT FROM redis_migrate.outbox_gap AS g WHERE g.mapping_id = m.mapping_id))))sql",
             {SqlParam::Text(migration)})[0]
      .Bool(0);
}

// Until it is not wanted any more, or, until_drained, until nothing is left.
void Feed(const std::string &name, bool until_drained) {
  for (;;) {
    if (!until_drained && !ReadWanted(name).wanted) return;
    NoteState(name, "running", std::nullopt);
    Spi::Commit();
    Wanted const begun = ReadWanted(name);
    ReverseFeed feed(LoadMigration(name));
    feed.Look();
    bool is_failed = false;
    for (int64 looked_ms = pg::MonotonicMs();;) {
      int64 sent = 0;
      try {
        sent = feed.SendSome();
      } catch (const ReverseStopped &) {
        break;
      }
      if (sent == 0 && until_drained && feed.problem())
        throw pg::Failure(feed.problem()->sqlstate, feed.problem()->message);
      if (until_drained && sent == 0) return;
      if (feed.problem().has_value() != is_failed) {
        is_failed = !is_failed;
        NoteState(name, is_failed ? "failed" : "running", feed.problem());
        Spi::Commit();
      }
      if (int64 const now_ms = pg::MonotonicMs(); now_ms - looked_ms > kLookMs) {
        looked_ms = now_ms;
        feed.Look();
        Wanted const now = ReadWanted(name);
        if (!now.wanted && !until_drained) return;
        if (now.definition != begun.definition) break;
      }
      if (sent == 0) pg::Sleep(kPauseMs);
    }
  }
}

}  // namespace
}  // namespace prm

// redis_migrate.feed_redis(migration text, until_drained boolean): see the SQL comment. Errors: 2D000 in a
// transaction block, 42704, 42501 not the owner, 55006 if another process feeds and until_drained is false,
// those of ReverseFeed.
PRM_FUNCTION(feed_redis) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.feed_redis commits after each batch");
  std::string const migration = pg::TextArgument(fcinfo, 0, "migration");
  bool const until_drained = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  pg::Spi spi(true);
  LoadMigration(migration);
  pg::SessionLock lock(ReverseFeedLock(migration), ExclusiveLock);
  while (!lock.TryTake()) {
    if (!until_drained)
      throw pg::Failure(ERRCODE_OBJECT_IN_USE,
                        "the reverse feed of migration \"" + migration + "\" is under way", "",
                        "SELECT * FROM redis_migrate.reverse_feeds.");
    bool const is_drained = IsDrained(migration);  // by the other process
    Spi::Commit();
    if (is_drained) PG_RETURN_VOID();
    pg::Sleep(kPauseMs);
  }
  std::optional<pg::Problem> problem;
  try {
    Feed(migration, until_drained);
    NoteState(migration, until_drained ? "idle" : "stopped", std::nullopt);
    Spi::Commit();
  } catch (...) {
    problem = pg::CurrentProblem();
    pg::RollBackAfter(*problem);
    NoteState(migration, "failed", problem);
    Spi::Commit();
    throw;
  }
  PG_RETURN_VOID();
}
