#include "reverse/reverse_feed.h"

#include "mapping/family_state.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/identity.h"
#include "pg/instance.h"
#include "pg/session_lock.h"
#include "pg/settings.h"
#include "pg/transaction.h"
#include "reverse/late_deletions.h"
#include "reverse/ledger_names.h"
#include "reverse/row_faults.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr int kMostNames = 1000;   // of a batch
constexpr int64 kHoldMs = 5000;    // a mapping whose reverse query is at fault
constexpr int64 kRetryMs = 60000;  // between two tries of rejected rows
constexpr int64 kLookAtLateMs = 10;
constexpr int64 kLookAtLateAgainMs = 5000;
constexpr int64 kMostLateMs = 20;       // for either look at a time
constexpr size_t kMostRejects = 10000;  // of a mapping: the query is wrong

}  // namespace

LOCKTAG ReverseFeedLock(const std::string &migration) {
  return pg::LockTagOfName(pg::kReverseLocks, migration);
}

std::string FeedInstance() { return pg::ThisInstance() + "/" + std::to_string(MyDatabaseId); }

ReverseFeed::ReverseFeed(const Migration &migration)
    : migration_(migration.name), source_(migration.source), server_(migration.server) {
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
    if (int64 const id = reverse.mapping.id; installed.erase(id) > 0)
      fed_.push_back({std::move(reverse), Outbox(id), kMostNames});
  if (!installed.empty())
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "a mapping of migration \"" + migration_ + "\" whose changes are noted has no way back any more",
        problems.empty()
            ? ""
            : "Mapping \"" + problems.begin()->first + "\": " + problems.begin()->second.problem + ".",
        "SELECT * FROM redis_migrate.reverse_problems(" + pg::QuoteLiteral(migration_) + ").");
  for (Fed &fed : fed_) {
    ReadRejected(fed);
    fed.unscanned = fed.outbox.ReadUnscanned();
    if (const std::string &pattern = fed.reverse.mapping.pattern; HasOneMapping(migration_, pattern))
      late_patterns_.push_back(pattern);
  }
  std::string const instance = FeedInstance();
  Spi::Commit();
  sender_ = ReverseSender::Open(migration_, server_, instance);
  NoteLostBatches(migration_, *sender_);
}

std::string NotNoted(const std::string &table) { return "changes of table " + table + " are not noted"; }

const char *const kWhyNotNoted =
    "Somebody has disabled or dropped the triggers of the reverse feed, has enabled them for some sessions "
    "only, or has put another table in the place of the target. Redis may lack what was changed meanwhile.";

void ReverseFeed::SetProblem(std::optional<pg::Problem> problem,
                             std::optional<std::string> unwatched_pattern) {
  problem_ = std::move(problem);
  unwatched_pattern_ = std::move(unwatched_pattern);
}

void ReverseFeed::Look() {
  for (Fed &fed : fed_) {
    fed.outbox.NotePartitions();
    fed.unwatched = fed.outbox.FindUnwatched();
    Spi::Commit();  // it has locked the target
    {
      // Only a bound is reckoned from it: see Outbox. One at a time, or who ends the feed may wait for us and
      // we for him.
      pg::AsExtensionOwner as_owner;
      Spi::ExecuteKept(
          R"sql(UPDATE redis_migrate.reverse_mapping AS m
                SET oldest = (SELECT last_value FROM redis_migrate.outbox_outbox_id_seq)
                WHERE m.mapping_id = $1 AND m.oldest + $2 < (SELECT last_value FROM redis_migrate.outbox_outbox_id_seq)
                      AND NOT EXISTS (SELECT FROM redis_migrate.outbox AS o WHERE o.mapping_id = m.mapping_id))sql",
          {SqlParam::Int8(fed.reverse.mapping.id), SqlParam::Int8(pg::settings::max_outbox_rows / 8)});
    }
    Spi::Commit();
  }
}

void ReverseFeed::ReadRejected(Fed &fed) {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute("SELECT name FROM redis_migrate.reverse_reject WHERE mapping_id = $1",
                           {SqlParam::Int8(fed.reverse.mapping.id)});
  for (uint64 i = 0; i < rows.size(); ++i) fed.rejected.insert(rows[i].TextArray(0));
}

int64 ReverseFeed::SendSome() {
  int64 sent = 0;
  SetProblem(std::nullopt);
  has_more_ = waits_ = is_unserved_ = false;
  for (Fed &fed : fed_) {
    if (pg::MonotonicMs() < fed.held_until_ms) {
      SetProblem(fed.problem);
      continue;
    }
    try {
      sent += SendSome(fed);
    } catch (const QueryFault &fault) {
      sender_->Clear();
      ForgetBatch();
      written_.clear();
      refused_.clear();
      EndPass(fed);
      fed.held_until_ms = pg::MonotonicMs() + kHoldMs;
      SetProblem(fed.problem = fault.problem);
    }
  }
  SettleDeletions();
  return sent;
}

// At once, because a row that has expired as its key has may be renewed. All are looked at once more after a
// while: where the clock here is behind that of Redis, the row has not expired at first, and of several
// processes that note late writes one may commit a smaller number later.
void ReverseFeed::SettleDeletions() {
  int64 const now_ms = pg::MonotonicMs();
  if (late_patterns_.empty() || now_ms - late_looked_ms_ < kLookAtLateMs) return;
  late_looked_ms_ = now_ms;
  auto const find = [&] {
    std::vector<const ReverseMapping *> reverses;
    for (const Fed &fed : fed_) reverses.push_back(&fed.reverse);
    return reverses;
  };
  auto const settle = [&](int64 &after) {
    return SettleLateDeletions(migration_, late_patterns_, find, after, pg::MonotonicMs() + kMostLateMs);
  };
  settle(late_looked_);
  if (now_ms - late_again_ms_ < kLookAtLateAgainMs || !settle(late_again_)) return;  // or goes on next time
  late_again_ms_ = now_ms;
  late_again_ = std::exchange(late_again_next_, late_looked_);
}

int64 ReverseFeed::SendSome(Fed &fed) {
  if (fed.outbox.IsAtRest()) {
    // A cutover that is just being committed ends the rest: what it leads to is not forgotten, and no gap
    // that is about to be forgotten stands for it.
    if (TryLockFamilies(migration_) && fed.outbox.ForgetAtRest()) {
      fed.rejected.clear();
      fed.unscanned.reset();
      fed.open.reset();
      EndPass(fed);
    }
    Spi::Commit();
    return 0;
  }
  int64 sent = 0;
  if (!fed.rejected.empty() && pg::MonotonicMs() >= fed.retry_at_ms) {
    fed.retry_at_ms = pg::MonotonicMs() + kRetryMs;
    SendNames(fed, fed.rejected);
  }
  if (fed.rejected.size() > kMostRejects)
    throw QueryFault{
        {ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many rows of mapping \"" + fed.reverse.mapping.name +
                                             "\" cannot be written back: see redis_migrate.reverse_rejects"}};
  bool const needs_full = fed.pass || fed.outbox.NeedsFull();
  if ((needs_full || fed.unscanned.any()) && fed.outbox.FollowsRedis()) {
    EndPass(fed);  // until the family is PostgreSQL's
  } else {
    if (needs_full) sent += SendMoreRows(fed);
    if (!fed.pass) sent += RemoveKeysWithoutRows(fed);
  }
  sent += SendOutbox(fed);
  has_more_ |= fed.outbox.HasMore();
  if (!fed.unwatched.empty())
    SetProblem(pg::Problem{ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, NotNoted(fed.unwatched)},
               fed.reverse.mapping.pattern);
  if (fed.open) SetProblem(fed.open);
  if (fed.outbox.HasPassedOver())
    SetProblem(pg::Problem{ERRCODE_CANNOT_CONNECT_NOW,
                           sender_->WhyHeld() + (fed.open ? "; " + fed.open->message : "")});
  return sent;
}

int64 ReverseFeed::SendOutbox(Fed &fed) {
  std::vector<Outbox::Change> changes;
  {
    pg::SnapshotScope snapshot;
    changes = fed.outbox.Read(fed.limit);
  }
  if (changes.empty()) {
    Spi::Commit();
    return 0;
  }
  std::set<RowName> noted, wanted;
  for (const Outbox::Change &change : changes) noted.insert(change.name);
  std::map<RowName, RowName> const found = FindNames(fed.reverse, noted);
  std::vector<std::optional<RowName>> names;
  for (const Outbox::Change &change : changes) {
    auto const name = found.find(change.name);
    names.push_back(name == found.end() ? std::nullopt : std::optional(name->second));
    if (names.back()) wanted.insert(*names.back());
  }
  // Redis is sent the state of the rows after these changes, or later.
  std::set<RowName> const postponed = AddKeys(fed, wanted);
  Sent const sent = Send(fed.reverse, wanted);
  Done done;
  std::set<RowName> waiting;  // of held ones; one change of each is enough
  for (size_t i = 0; i < changes.size(); ++i) {
    bool const is_held = names[i] && held_.count(*names[i]) > 0;
    if (is_held ? waiting.insert(*names[i]).second : names[i] && postponed.count(*names[i]) > 0) {
      done.first_left = std::min(done.first_left, changes[i].id);
      continue;
    }
    done.ids.push_back(changes[i].id);
    if (is_held) continue;
    if (fed.reverse.ledger && (!names[i] || unknown_.count(*names[i]) > 0))
      ++done.nameless;
    else if (!names[i] || untold_.count(*names[i]) > 0)
      ++done.unfit;
    else if (refused_.count(*names[i]) == 0)
      ++done.sent;
  }
  if (!held_.empty()) fed.outbox.PassOver(done.first_left);
  Settle(fed, sent, done);
  return static_cast<int64>(done.ids.size());
}

// Sends what was added of these names, and finds those that are held.
ReverseFeed::Sent ReverseFeed::Send(const ReverseMapping &reverse, const std::set<RowName> &names) {
  Sent sent;
  sent.done = sender_->slots();
  sent.unsure = CommitDurably(reverse, sent.done);
  redis::Slots const held = sender_->Send(batch_);
  sent.done &= ~held;
  sent.unsure &= ~sent.done;
  if (held.none()) return sent;
  for (const RowName &name : names)
    if (held.test(sender_->SlotOf(reverse.KeyOf(name))) && refused_.count(name) + untold_.count(name) == 0) {
      held_.insert(name);
      written_.erase(name);
    }
  return sent;
}

// Forgets the changes that a batch was about.
void ReverseFeed::Settle(Fed &fed, const Sent &sent, const Done &done) {
  // If a crash undoes this, it is done once more.
  pg::SetForTransaction("synchronous_commit", "off");
  LockFeed(migration_);
  fed.outbox.Forget(done.ids, done.first_left);
  StoreRejects(fed);
  if (done.nameless > 0) fed.outbox.NoteNameless(done.nameless);
  {
    pg::AsExtensionOwner as_owner;
    Spi::ExecuteKept(
        R"sql(UPDATE redis_migrate.reverse_feed
              SET acknowledged = CASE WHEN $4 THEN $2 ELSE acknowledged END, slots = $3
              WHERE migration = $1)sql",
        {SqlParam::Text(migration_), SqlParam::Int8(batch_), SqlParam::Text(redis::SlotsToText(sent.unsure)),
         SqlParam::Bool(!sender_->is_cluster() || sent.done.any())});
    if (sender_->is_cluster()) NoteSlots(sent.done);
    Spi::ExecuteKept(
        R"sql(UPDATE redis_migrate.reverse_mapping
              SET sent = sent + $2, unfit = unfit + $3, last_sent_at = clock_timestamp(),
                  oldest = coalesce((SELECT outbox_id FROM redis_migrate.outbox
                                     WHERE mapping_id = $1 AND outbox_id >= $4
                                     ORDER BY outbox_id LIMIT 1),
                                    (SELECT last_value FROM redis_migrate.outbox_outbox_id_seq))
              WHERE mapping_id = $1)sql",
        {SqlParam::Int8(fed.reverse.mapping.id), SqlParam::Int8(done.sent), SqlParam::Int8(done.unfit),
         SqlParam::Int8(fed.outbox.from())});
  }
  Spi::Commit();
  ForgetBatch();
}

void ReverseFeed::ForgetBatch() {
  untold_.clear();
  unknown_.clear();
  held_.clear();
}

// The masters of a cluster lose batches, if they do, one without the others.
void ReverseFeed::NoteSlots(const redis::Slots &slots) {
  std::vector<int64> numbers;
  for (size_t slot = 0; slot < redis::kClusterSlots; ++slot)
    if (slots.test(slot)) numbers.push_back(static_cast<int64>(slot));
  Spi::ExecuteKept(
      R"sql(INSERT INTO redis_migrate.reverse_slot (migration, slot, acknowledged)
            SELECT $1, unnest($2), $3
            ON CONFLICT (migration, slot) DO UPDATE SET acknowledged = excluded.acknowledged)sql",
      {SqlParam::Text(migration_), SqlParam::Int8Array(numbers), SqlParam::Int8(batch_)});
}

void ReverseFeed::StoreRejects(Fed &fed) {
  int64 const mapping_id = fed.reverse.mapping.id;
  pg::AsExtensionOwner as_owner;
  for (const RowName &name : written_)
    if (fed.rejected.erase(name) > 0)
      Spi::ExecuteKept(
          R"sql(DELETE FROM redis_migrate.reverse_reject
                WHERE mapping_id = $1 AND name_hash = hash_array_extended($2, 0))sql",
          {SqlParam::Int8(mapping_id), SqlParam::TextArray(name)});
  for (const auto &[name, problem] : refused_) {
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.reverse_reject (mapping_id, name_hash, name, key, sqlstate, message)
              VALUES ($1, hash_array_extended($2, 0), $2, $3, $4, $5)
              ON CONFLICT (mapping_id, name_hash) DO UPDATE
                  SET name = excluded.name, key = excluded.key, sqlstate = excluded.sqlstate, message = excluded.message,
                      rejected_at = clock_timestamp())sql",
        {SqlParam::Int8(mapping_id), SqlParam::TextArray(name), SqlParam::Text(fed.reverse.KeyOf(name)),
         SqlParam::Text(problem.SqlState()), SqlParam::Text(problem.message)});
    fed.rejected.insert(name);
  }
  written_.clear();
  refused_.clear();
}

// Other sessions may commit with synchronous_commit = off: what their snapshots show may be lost in a crash,
// and must not be in Redis then. This commit is flushed, and with it all before it. Returns the slots of
// earlier batches that are not acknowledged.
redis::Slots ReverseFeed::CommitDurably(const ReverseMapping &reverse, const redis::Slots &slots) {
  pg::SetForTransaction("synchronous_commit", "local");
  bool is_noted = false;
  redis::Slots earlier;
  {
    pg::AsExtensionOwner as_owner;
    // After a wait for EndBatches, the next statement sees what it has ended batches for.
    auto feed =
        Spi::ExecuteKept("SELECT slots FROM redis_migrate.reverse_feed WHERE migration = $1 FOR UPDATE",
                         {SqlParam::Text(migration_)});
    if (feed.size() > 0) earlier = pg::ValueOrThrow(redis::SlotsFromText(feed[0].Text(0)));
    auto rows = Spi::ExecuteKept(
        R"sql(UPDATE redis_migrate.reverse_feed SET batch = batch + 1, slots = $3
              WHERE migration = $1
                  AND EXISTS (SELECT
                              FROM redis_migrate.reverse_mapping
                              JOIN redis_migrate.mapping AS m USING (mapping_id)
                              WHERE m.mapping_id = $2 AND NOT )sql" +
            std::string(kIsRedisAgain) + R"sql()
              RETURNING batch)sql",
        {SqlParam::Text(migration_), SqlParam::Int8(reverse.mapping.id),
         SqlParam::Text(redis::SlotsToText(earlier | slots))});
    is_noted = rows.size() > 0;
    if (is_noted) batch_ = rows[0].Int8(0);
  }
  Spi::Commit();
  if (!is_noted) throw ReverseStopped(reverse.mapping.name);
  return earlier;
}

// Keys that never had rows, because runs have rejected them: Redis alone has their values.
std::set<RowName> ReverseFeed::FindRejected(const ReverseMapping &reverse, const std::set<RowName> &names) {
  std::vector<std::string> keys;
  std::vector<int> dbs;
  std::map<std::pair<int, std::string>, const RowName *> name_of;
  for (const RowName &name : names) {
    keys.push_back(reverse.KeyOf(name));
    dbs.push_back(reverse.DbOf(name));
    name_of[{dbs.back(), keys.back()}] = &name;
  }
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::ExecuteKept(
      R"sql(SELECT DISTINCT x.db, x.key_bytes
            FROM redis_migrate.reject AS x JOIN redis_migrate.run AS r USING (run_id)
            WHERE r.migration = $1 AND x.db = ANY ($2) AND x.key_bytes = ANY ($3) AND x.settled_at IS NULL)sql",
      {SqlParam::Text(migration_), SqlParam::Int4Array(dbs),
       SqlParam::ByteaArray({keys.begin(), keys.end()})},
      true);
  std::set<RowName> found;
  for (uint64 i = 0; i < rows.size(); ++i)
    if (auto const name = name_of.find({rows[i].Int4(0), std::string(pg::DatumBytes(rows[i].Value(1)))});
        name != name_of.end())
      found.insert(*name->second);
  return found;
}

std::set<RowName> ReverseFeed::AddKeys(Fed &fed, const std::set<RowName> &names) {
  std::set<RowName> postponed;
  if (!names.empty())
    ForRowsInOrder(
        names, [&](const std::set<RowName> &part) { postponed.merge(AddReadKeys(fed, part)); },
        [&](const RowName &name, const pg::Problem &problem) { refused_[name] = problem; });
  return postponed;
}

std::set<RowName> ReverseFeed::AddReadKeys(Fed &fed, const std::set<RowName> &all_names) {
  const ReverseMapping &reverse = fed.reverse;
  std::set<RowName> postponed, names = all_names;
  // Redis alone has the rejected elements of such keys.
  if (reverse.mapping.atomic == "element") {
    std::set<RowName> const rejected = FindRejected(reverse, names);
    for (const RowName &name : all_names)
      if (rejected.count(name) > 0) {
        names.erase(name);
        refused_[name] = {
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "runs have rejected elements of the key, which would go: see redis_migrate.rejects"};
      }
  }
  if (redis::Slots const held = sender_->held(); held.any())
    for (const RowName &name : all_names)
      if (held.test(sender_->SlotOf(reverse.KeyOf(name))) && names.erase(name) > 0) held_.insert(name);
  int64 bytes = 0;
  std::set<RowName> unknown;
  std::map<RowName, ReverseValue> const values = ReadReverseRows(reverse, names, bytes, &unknown);
  fed.limit = bytes > kMostReverseBytes ? std::max(1, fed.limit / 2) : std::min(kMostNames, fed.limit * 2);
  for (const RowName &name : names) {
    auto const found = values.find(name);
    if (found != values.end() && !found->second) {
      postponed.insert(name);
      continue;
    }
    if (!fed.rejected.empty()) written_.insert(name);
    // Whether a run has deleted the row, or it is another key's now: Redis has what it should.
    if (unknown.count(name) > 0) unknown_.insert(name);
    if (unknown.count(name) > 0 || (found != values.end() && found->second->type.empty())) {
      untold_.insert(name);
      continue;
    }
    static const sink::WholeValue &no_key = *new sink::WholeValue{"list"};
    Status const status = sender_->Add(reverse.DbOf(name), reverse.KeyOf(name),
                                       found == values.end() ? no_key : *found->second);
    if (!status.ok()) {
      written_.erase(name);
      refused_[name] = {pg::Failure::SqlState(status.error().code), status.error().message};
    }
  }
  return postponed;
}

void ReverseFeed::SendNames(Fed &fed, std::set<RowName> names) {
  while (!names.empty()) {
    auto const end = std::next(names.begin(), std::min<int64>(fed.limit, static_cast<int64>(names.size())));
    std::set<RowName> const part(names.begin(), end);
    std::set<RowName> const left = AddKeys(fed, part);
    names.erase(names.begin(), end);
    names.insert(left.begin(), left.end());
    SendNoted(fed, part);
  }
}

// Sends what was added of these names. Those that are held wait as changes do.
void ReverseFeed::SendNoted(Fed &fed, const std::set<RowName> &names) {
  Sent const sent = Send(fed.reverse, names);
  std::set<RowName> held;
  for (const RowName &name : held_) held.insert(fed.reverse.ledger ? fed.reverse.ledger->Noted(name) : name);
  fed.outbox.Note(held);
  Done none;
  none.first_left = fed.outbox.from();  // this is not about what was read of the outbox
  Settle(fed, sent, none);
}

}  // namespace prm
