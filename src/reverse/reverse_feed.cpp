#include "reverse/reverse_feed.h"

#include "mapping/mapping_settings.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/rollback.h"
#include "pg/session_lock.h"
#include "pg/transaction.h"
#include "pg/wait.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kMostNames = 1000;        // of a batch
constexpr size_t kMostBytes = 8 << 20;  // of a batch; a single larger value is sent alone
constexpr long kPauseMs = 20;           // between two looks at an empty outbox
constexpr int64 kLookMs = 1000;         // between two looks whether the feed is wanted

uint64 LockIdOf(const std::string &migration) {
  return DatumGetUInt64(pg::Call([&] {
    return hash_any_extended(reinterpret_cast<const unsigned char *>(migration.data()),
                             static_cast<int>(migration.size()), 0);
  }));
}

}  // namespace

ReverseFeed::ReverseFeed(const std::string &migration) : migration_(migration), limit_(kMostNames) {
  Migration const definition = LoadMigration(migration);
  server_ = definition.server;
  lock_ =
      std::make_unique<pg::SessionLock>(pg::LockTag(pg::kReverseLocks, LockIdOf(migration)), ExclusiveLock);
  if (!lock_->TryTake())
    throw pg::Failure(ERRCODE_OBJECT_IN_USE,
                      "the reverse feed of migration \"" + migration + "\" is under way", "",
                      "SELECT * FROM redis_migrate.reverse_feeds.");
  std::set<int64> installed;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute("SELECT mapping_id FROM redis_migrate.reverse_mapping WHERE migration = $1",
                             {SqlParam::Text(migration)});
    for (uint64 i = 0; i < rows.size(); ++i) installed.insert(rows[i].Int8(0));
  }
  if (installed.empty())
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "migration \"" + migration + "\" has no reverse feed", "",
                      "SELECT redis_migrate.start_reverse(" + pg::QuoteLiteral(migration) + ").");
  std::map<std::string, ReverseProblem> problems;
  for (ReverseMapping &reverse : FindReverses(definition, std::nullopt, problems))
    if (installed.erase(reverse.mapping.id) > 0) reverses_.push_back(std::move(reverse));
  if (!installed.empty())
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "a mapping of migration \"" + migration + "\" whose changes are noted has no way back any more",
        problems.empty()
            ? ""
            : "Mapping \"" + problems.begin()->first + "\": " + problems.begin()->second.problem + ".",
        "SELECT * FROM redis_migrate.reverse_problems(" + pg::QuoteLiteral(migration) + ").");
  Spi::Commit();
  sender_ = std::make_unique<ReverseSender>(migration, server_);
}

bool ReverseFeed::IsWanted() {
  bool wanted = false;
  {
    pg::AsExtensionOwner as_owner;
    auto rows = Spi::Execute("SELECT wanted FROM redis_migrate.reverse_feed WHERE migration = $1",
                             {SqlParam::Text(migration_)});
    wanted = rows.size() > 0 && rows[0].Bool(0);
  }
  Spi::Commit();
  return wanted;
}

int64 ReverseFeed::SendAll() {
  int64 sent = 0;
  for (const ReverseMapping &reverse : reverses_) {
    bool const needs_full = Outbox(reverse.mapping.id).NeedsFull();
    Spi::Commit();
    if (needs_full) SendAllRows(reverse);
    while (int64 const changes = SendOutbox(reverse)) sent += changes;
  }
  return sent;
}

// One snapshot for the changes and for the rows: what is sent is the state of the rows after them, or later.
int64 ReverseFeed::SendOutbox(const ReverseMapping &reverse) {
  Outbox const outbox(reverse.mapping.id);
  std::vector<int64> ids;
  {
    pg::SnapshotScope snapshot;
    std::set<RowName> names;
    for (Outbox::Change &change : outbox.Read(limit_)) {
      ids.push_back(change.id);
      names.insert(std::move(change.name));
    }
    if (!ids.empty()) AddKeys(reverse, {names.begin(), names.end()}, false);
  }
  if (ids.empty()) {
    Spi::Commit();
    return 0;
  }
  CommitDurably(reverse);
  limit_ = sender_->bytes() > kMostBytes ? std::max(1, limit_ / 2) : std::min(kMostNames, limit_ * 2);
  sender_->Send(batch_);
  outbox.Forget(ids);
  Note(reverse, static_cast<int64>(ids.size()));
  Spi::Commit();
  return static_cast<int64>(ids.size());
}

// Other sessions may commit with synchronous_commit = off: what their snapshots show may be lost in a crash,
// and must not be in Redis then. This commit is flushed, and with it all before it.
void ReverseFeed::CommitDurably(const ReverseMapping &reverse) {
  pg::SetForTransaction("synchronous_commit", "local");
  {
    pg::AsExtensionOwner as_owner;
    batch_ =
        Spi::ExecuteKept(
            "UPDATE redis_migrate.reverse_feed SET batch = batch + 1 WHERE migration = $1 RETURNING batch",
            {SqlParam::Text(reverse.mapping.migration)})[0]
            .Int8(0);
  }
  Spi::Commit();
}

// Keys that never had rows, because runs have rejected them: Redis alone has their values.
std::set<std::string> ReverseFeed::FindRejected(const ReverseMapping &reverse,
                                                const std::vector<std::string> &keys) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT DISTINCT x.key_bytes
            FROM redis_migrate.reject AS x JOIN redis_migrate.run AS r USING (run_id)
            WHERE r.migration = $1 AND x.db = $2 AND x.key_bytes = ANY ($3) AND x.settled_at IS NULL)sql",
      {SqlParam::Text(reverse.mapping.migration), SqlParam::Int4(reverse.db),
       SqlParam::ByteaArray({keys.begin(), keys.end()})},
      true);
  std::set<std::string> found;
  for (uint64 i = 0; i < rows.size(); ++i) found.emplace(pg::DatumBytes(rows[i].Value(0)));
  return found;
}

void ReverseFeed::AddKeys(const ReverseMapping &reverse, const std::vector<RowName> &names,
                          bool only_missing) {
  std::map<RowName, redis::WholeValue> values;
  {
    MappingSettings settings(reverse.mapping);
    settings.Set("datestyle", "ISO, YMD");
    std::vector<SqlParam> parameters;
    for (size_t i = 0; i < reverse.names.size(); ++i) {
      std::vector<std::string> column;
      for (const RowName &name : names) column.push_back(name[i]);
      parameters.push_back(SqlParam::TextArray(column));
    }
    auto rows = Spi::Execute(reverse.ReadStatement(), parameters, true);
    for (uint64 i = 0; i < rows.size(); ++i) values.insert(ReadReverseRow(reverse, rows[i]));
  }
  std::vector<std::string> missing;
  for (const RowName &name : names) {
    auto value = values.find(name);
    if (value == values.end())
      missing.push_back(reverse.KeyOf(name));
    else if (!only_missing)
      sender_->Add(reverse.db, reverse.KeyOf(name), value->second);
  }
  std::set<std::string> const rejected =
      only_missing ? FindRejected(reverse, missing) : std::set<std::string>();
  for (const std::string &key : missing)
    if (rejected.count(key) == 0) sender_->Add(reverse.db, key, redis::WholeValue{"list", {}, std::nullopt});
}

void ReverseFeed::Note(const ReverseMapping &reverse, int64 changes) {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.reverse_mapping
            SET sent = sent + $2, last_sent_at = clock_timestamp(),
                oldest = coalesce((SELECT outbox_id FROM redis_migrate.outbox WHERE mapping_id = $1 ORDER BY outbox_id LIMIT 1),
                                  (SELECT last_value FROM redis_migrate.outbox_outbox_id_seq))
            WHERE mapping_id = $1)sql",
      {SqlParam::Int8(reverse.mapping.id), SqlParam::Int8(changes)});
}

// All rows, and then all keys of the pattern, whose rows may be gone. What changes meanwhile is noted again.
void ReverseFeed::SendAllRows(const ReverseMapping &reverse) {
  Outbox const outbox(reverse.mapping.id);
  outbox.BeginFull();
  Spi::Commit();
  auto send = [&](const std::vector<RowName> &names, bool only_missing) {
    {
      pg::SnapshotScope snapshot;
      AddKeys(reverse, names, only_missing);
    }
    CommitDurably(reverse);
    sender_->Send(batch_);
    Note(reverse, static_cast<int64>(names.size()));
    Spi::Commit();
  };
  RowName last;
  for (;;) {
    std::vector<RowName> names;
    {
      MappingSettings settings(reverse.mapping);
      settings.Set("datestyle", "ISO, YMD");
      std::vector<SqlParam> after;
      for (size_t i = 0; i < reverse.names.size(); ++i)
        after.push_back(last.empty() ? SqlParam{TEXTOID, 0, true} : SqlParam::Text(last[i]));
      auto rows = Spi::Execute(reverse.PageStatement(limit_), after);
      for (uint64 i = 0; i < rows.size(); ++i) {
        names.emplace_back();
        for (size_t j = 0; j < reverse.names.size(); ++j)
          names.back().push_back(rows[i].Text(static_cast<int>(j)));
      }
    }
    Spi::Commit();
    if (names.empty()) break;
    last = names.back();
    send(names, false);
  }
  if (reverse.mapping.no_row == "skip") {  // keys may never have had rows
    outbox.EndFull();
    return Spi::Commit();
  }
  ServerConnection keys(server_, GetUserId());
  pg::ValueOrThrow(keys->Command({"SELECT", std::to_string(reverse.db)}));
  std::string cursor = "0";
  do {
    redis::Reply const page = pg::ValueOrThrow(
        keys->Command({"SCAN", cursor, "MATCH", reverse.pattern.Glob(), "COUNT", std::to_string(kMostNames)},
                      redis::kLargeReply));
    auto const next = page.element(0).String();
    if (page.size() != 2 || !next || !page.element(1).IsArray())
      throw pg::Failure(keys->UnknownReply("SCAN"));
    std::vector<RowName> names;
    for (size_t i = 0; i < page.element(1).size(); ++i)
      if (auto const key = page.element(1).element(i).String())
        if (auto name = reverse.NameOf(*key)) names.push_back(std::move(*name));
    cursor = *next;
    if (!names.empty()) send(names, true);
  } while (cursor != "0");
  outbox.EndFull();
  Spi::Commit();
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

void Feed(const std::string &migration, bool until_drained) {
  ReverseFeed feed(migration);
  NoteState(migration, "running", std::nullopt);
  Spi::Commit();
  for (int64 looked_ms = 0;;) {
    int64 const sent = feed.SendAll();
    if (until_drained && sent == 0) return;
    int64 const now_ms = pg::MonotonicMs();
    if (!until_drained && now_ms - looked_ms > kLookMs) {
      looked_ms = now_ms;
      if (!feed.IsWanted()) return;
    }
    if (sent == 0) pg::Sleep(kPauseMs);
  }
}

}  // namespace
}  // namespace prm

// redis_migrate.feed_redis(migration text, until_drained boolean): see the SQL comment. Errors: 2D000 in a
// transaction block, those of ReverseFeed.
PRM_FUNCTION(feed_redis) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.feed_redis commits after each batch");
  std::string const migration = pg::TextArgument(fcinfo, 0, "migration");
  bool const until_drained = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  pg::Spi spi(true);
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
