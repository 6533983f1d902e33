// CALL redis_migrate.cutback(…): gives families back to Redis.
//
// First nobody writes to the tables any more. Once the reverse feed has written to Redis what was noted until
// then, both are equal, which a sample has to show; only then the old writers get their rights back.
#include "cutover/barrier.h"
#include "cutover/obstacles.h"
#include "cutover/round_trip.h"
#include "cutover/table_fence.h"
#include "cutover/unfinished.h"
#include "mapping/family_state.h"
#include "pg/argument_ranges.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/rollback.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/wait_limit.h"
#include "reverse/late_deletions.h"
#include "reverse/ledger_names.h"
#include "reverse/reverse_feed.h"

namespace prm {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

constexpr long kLookAgainMs = 10;
constexpr int64 kSettleAgainMs = 2000;  // deletions that somebody else is just changing
constexpr int64 kGraceMs = 1000;        // beyond max_wait, for a Redis that does not answer
constexpr long kFeedAgainMs = 200;  // what has to wait, such as for a slot of a cluster that is being moved

class Cutback {
 public:
  Cutback(const Migration &migration, std::vector<std::string> patterns, int64 wait_ms, bool discards,
          bool fences_others)
      : migration_(migration),
        patterns_(std::move(patterns)),
        until_ms_(pg::MonotonicMs() + wait_ms),
        discards_(discards),
        fences_others_(fences_others) {}

  void Execute();

 private:
  void CheckStates() const;
  void SettleDeletions();
  int64 CountOpenWrites(const std::string &condition) const;
  void CheckLateWrites() const;
  bool HasNewDeletions() const;
  std::string FindUnfed() const;
  std::string ListUnnoted() const;
  void RequireTriggers() const;
  void CheckRejects() const;
  void CheckSharers() const;
  void Check();
  bool IsDrained() const;
  bool HasAllBatches() const;
  void Choose();
  void Fence();
  void NotePartitions() const;
  std::optional<pg::Problem> Feed() const;
  void Drain();
  void WaitForBoth(Masters &masters);
  void Compare(Masters &masters);
  void GiveBack(Masters &masters);
  int64 RestMs() const { return until_ms_ - pg::MonotonicMs(); }
  static Failure TookLonger();
  void RequireRest() const;
  void LockFamilies() const;
  std::string Arguments() const { return ArgumentsFor(migration_, patterns_); }

  const Migration &migration_;
  std::vector<std::string> patterns_;
  int64 until_ms_;
  bool discards_;
  bool fences_others_;
  std::optional<CutoverRecord> record_;
  std::optional<RoundTrip> round_trip_;  // if no changes are discarded
  std::vector<int64> kept_;              // late deletions whose keys have rows, when they were looked at last
};

void Cutback::CheckStates() const {
  for (const std::string &pattern : patterns_)
    if (std::string const state = FamilyState(migration_.name, pattern);
        state != "postgres" && state != "both")
      throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "family " + pattern + " of migration \"" + migration_.name + "\" is in state " + state,
                    "Only families in state postgres or both can be given back.",
                    "Name a pattern. SELECT * FROM redis_migrate.families WHERE migration = " +
                        pg::QuoteLiteral(migration_.name) + ".");
}

void Cutback::SettleDeletions() {
  std::vector<ReverseMapping> found;
  auto const find = [&] {
    std::map<std::string, ReverseProblem> problems;
    for (const std::string &pattern : patterns_) {
      if (!HasOneMapping(migration_.name, pattern)) continue;
      for (ReverseMapping &reverse : FindFedMappings(migration_, pattern, problems))
        found.push_back(std::move(reverse));
    }
    std::vector<const ReverseMapping *> reverses;
    for (const ReverseMapping &reverse : found) reverses.push_back(&reverse);
    return reverses;
  };
  for (int64 const again_until_ms = std::min(until_ms_, pg::MonotonicMs() + kSettleAgainMs);;) {
    int64 after = 0;
    std::set<int64> left;
    SettleLateDeletions(migration_.name, patterns_, find, after, until_ms_, &left);
    kept_.assign(left.begin(), left.end());
    bool const is_settled = CountOpenWrites("kind = 'deleted' AND late_write_id = ANY ($3)") == 0;
    Spi::Commit();
    // The reverse feed or live sync may just have had one of them.
    if (is_settled || pg::MonotonicMs() >= again_until_ms) return;
    found.clear();
    pg::Sleep(kLookAgainMs);
  }
}

// Late writes of the families for which a condition holds, of which $3 is kept_. Their numbers do not tell
// which were there to be looked at: of several processes that note late writes one may commit a smaller
// number later.
int64 Cutback::CountOpenWrites(const std::string &condition) const {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT count(*)
                            FROM redis_migrate.late_write
                            WHERE migration = $1 AND pattern = ANY ($2) AND settled_at IS NULL AND ()sql" +
                 condition + ")",
             {SqlParam::Text(migration_.name), SqlParam::TextArray(patterns_), SqlParam::Int8Array(kept_)})[0]
      .Int8(0);
}

// Deletions that have come since they were settled last are settled before the families are given back.
void Cutback::CheckLateWrites() const {
  int64 const late = CountOpenWrites("kind <> 'deleted' OR late_write_id = ANY ($3)");
  if (late > 0)
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  std::to_string(late) + " keys were written to or deleted in Redis after the cutover",
                  "Nobody knows whether their values there or here are the right ones.",
                  "SELECT * FROM redis_migrate.late_writes; once they are right: SELECT "
                  "redis_migrate.settle_late_writes(" +
                      Arguments() + ").");
}

bool Cutback::HasNewDeletions() const {
  return CountOpenWrites("kind = 'deleted' AND late_write_id <> ALL ($3)") > 0;
}

// The mappings of families of which no reverse feed writes anything, nor does one that is paused in a copy of
// the database. Of several mappings of a family one knows the whole value.
std::string Cutback::FindUnfed() const {
  std::string const instance = FeedInstance();
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(
             R"sql(SELECT string_agg(p.mappings, ', ' ORDER BY p.first)
                   FROM (SELECT min(m.mapping_id) AS first,
                             string_agg('"' || m.mapping || '"', ', ' ORDER BY m.mapping_id) AS mappings
                         FROM redis_migrate.mapping AS m
                         LEFT JOIN redis_migrate.reverse_mapping AS r USING (mapping_id)
                         LEFT JOIN redis_migrate.reverse_feed AS f ON f.migration = m.migration AND f.wanted AND coalesce(f.instance, $3) = $3
                         WHERE m.migration = $1 AND m.pattern = ANY ($2)
                         GROUP BY m.pattern
                         HAVING bool_and(r.mapping_id IS NULL OR f.migration IS NULL)) AS p)sql",
             {SqlParam::Text(migration_.name), SqlParam::TextArray(patterns_), SqlParam::Text(instance)})[0]
      .Text(0);
}

// The mappings of fed families whose targets nobody watches: the triggers are on that of the fed mapping.
std::string Cutback::ListUnnoted() const {
  std::map<std::string, std::vector<Oid>> watched;
  {
    pg::AsExtensionOwner as_owner;
    auto const rows = Spi::Execute(
        R"sql(SELECT m.pattern, r.target_relation::oid
              FROM redis_migrate.mapping AS m
              JOIN redis_migrate.reverse_mapping AS r USING (mapping_id)
              WHERE m.migration = $1)sql",
        {SqlParam::Text(migration_.name)});
    for (uint64 i = 0; i < rows.size(); ++i)
      watched[rows[i].Text(0)].push_back(DatumGetObjectId(rows[i].Value(1)));
  }
  std::string list;
  for (const std::string &mapping : FindUnnoted(migration_, patterns_, watched))
    list += (list.empty() ? "\"" : ", \"") + mapping + "\"";
  return list;
}

// Redis' values of rejected rows are from before their last change.
void Cutback::CheckRejects() const {
  if (std::string const nameless = FindNameless(migration_, patterns_); !nameless.empty())
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "rows of mappings " + nameless + " have no key in Redis", kWhyNameless,
                  "Bring to Redis yourself what it needs of them. Once nobody writes to the tables, and "
                  "redis_migrate.reverse_feeds shows that nothing waits: discard_changes => true.");
  pg::AsExtensionOwner as_owner;
  int64 const rejects = Spi::Execute(R"sql(SELECT count(*)
                            FROM redis_migrate.reverse_reject AS x
                            JOIN redis_migrate.mapping AS m USING (mapping_id)
                            WHERE m.migration = $1 AND m.pattern = ANY ($2))sql",
                                     {SqlParam::Text(migration_.name), SqlParam::TextArray(patterns_)})[0]
                            .Int8(0);
  if (rejects > 0)
    throw Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        std::to_string(rejects) + " rows cannot be written back to Redis",
        "Their keys are there as they were before.",
        "SELECT * FROM redis_migrate.reverse_rejects shows why: change the rows or the reverse query; "
        "or discard_changes => true.");
}

// What the application goes on writing here for other families would be refused.
void Cutback::CheckSharers() const {
  std::string const sharers = ListSharers(migration_, patterns_, true);
  if (sharers.empty()) return;
  std::string const what = "the tables have rows of families that stay PostgreSQL's: " + sharers;
  if (fences_others_)
    return pg::Report(WARNING, what, "Their writers are refused, too, until redis_migrate.unfence.");
  throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, what,
                "Tables are fenced as a whole: who writes rows of these families would be refused, too.",
                "Give them back together, if they are of one migration; or force => true, with their writers "
                "stopped until SELECT redis_migrate.unfence(" +
                    Arguments() + ").");
}

void Cutback::Check() {
  CheckStates();
  SettleDeletions();
  CheckLateWrites();
  RequireFenceableTables(migration_, patterns_);
  CheckSharers();
  if (discards_) return;
  std::string const unfed = FindUnfed();
  if (unfed.empty()) {
    RequireTriggers();
    if (std::string const unnoted = ListUnnoted(); !unnoted.empty())
      throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "changes of the tables of mappings " + unnoted + " are not noted",
                    "The reverse feed of a family of several mappings notes only those of the table of the "
                    "mapping with the reverse query. Redis may lack what was changed in others.",
                    "Change the rows of that table whose keys Redis lacks something of, and wait until the "
                    "reverse feed has written them; then discard_changes => true.");
    return CheckRejects();
  }
  std::string detail = "Redis has nothing of what was changed here since the cutover.";
  std::map<std::string, ReverseProblem> problems;
  for (const std::string &pattern : patterns_) FindFedMappings(migration_, pattern, problems);
  for (const auto &[mapping, problem] : problems)
    detail += "\nMapping \"" + mapping + "\": " + problem.problem + ".";
  throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "no reverse feed writes mappings " + unfed + " back to Redis", detail,
                problems.empty() ? "SELECT redis_migrate.start_reverse(" + Arguments() +
                                       "), and wait until it has written everything; or discard_changes => "
                                       "true."
                                 : "discard_changes => true, once you have brought to Redis yourself what it "
                                   "needs of that.");
}

// While writers still write. A row that goes meanwhile is compared as one that is gone.
void Cutback::Choose() {
  if (discards_) return;
  std::map<std::string, ReverseProblem> problems;
  std::vector<ReverseMapping> reverses;
  for (const std::string &pattern : patterns_)
    for (ReverseMapping &reverse : FindFedMappings(migration_, pattern, problems))
      reverses.push_back(std::move(reverse));
  Spi::Commit();
  round_trip_.emplace(migration_, patterns_, std::move(reverses));
  round_trip_->Choose();
}

Failure Cutback::TookLonger() {
  return {ERRCODE_QUERY_CANCELED, "the cutback took longer than max_wait", "",
          "Try again, with a longer max_wait. steps_ms of redis_migrate.cutovers shows what took long."};
}

void Cutback::RequireRest() const {
  if (RestMs() <= 0) throw TookLonger();
}

void Cutback::LockFamilies() const {
  if (!LockFamiliesWithin(migration_.name, RestMs())) throw TookLonger();
}

void Cutback::Fence() {
  CutoverRecord::Parameters const parameters = {migration_.name, patterns_, "redis", ""};
  record_.emplace(parameters);
  record_->Take("fencing");
  Spi::Commit();
  FenceTables(migration_, patterns_, until_ms_);
  if (!discards_) NotePartitions();
  Spi::Commit();
}

// Somebody may have disabled or dropped them.
void Cutback::RequireTriggers() const {
  for (int64 const mapping : FindNoted(migration_, patterns_))
    if (std::string const table = Outbox(mapping).FindUnwatched(); !table.empty())
      throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, NotNoted(table), kWhyNotNoted,
                    "SELECT redis_migrate.start_reverse(" + Arguments() +
                        ") makes them anew and writes all rows; or discard_changes => true.");
}

// The feed checks this once a second, so it may have missed a truncation.
void Cutback::NotePartitions() const {
  RequireTriggers();
  LockFeed(migration_.name);
  for (int64 const mapping : FindNoted(migration_, patterns_)) Outbox(mapping).NotePartitions();
}

// Whether everything that was noted has been written. Errors: 55000 if something never will be.
bool Cutback::IsDrained() const {
  if (!FindUnfed().empty())
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "the reverse feed was stopped meanwhile",
                  "Redis may not have everything that was changed here since the cutover.",
                  "SELECT redis_migrate.start_reverse(" + Arguments() +
                      "), and wait until it has written everything; or discard_changes => true.");
  {
    pg::AsExtensionOwner as_owner;
    if (Spi::Execute(
            R"sql(SELECT EXISTS (
                      SELECT
                      FROM redis_migrate.mapping AS m
                      JOIN redis_migrate.reverse_mapping AS r USING (mapping_id)
                      WHERE m.migration = $1 AND m.pattern = ANY ($2)
                          AND (r.in_full_pass
                               OR EXISTS (SELECT FROM redis_migrate.outbox AS o
                                          WHERE o.mapping_id = m.mapping_id)
                               OR EXISTS (SELECT FROM redis_migrate.outbox_gap AS g
                                          WHERE g.mapping_id = m.mapping_id))))sql",
            {SqlParam::Text(migration_.name), SqlParam::TextArray(patterns_)})[0]
            .Bool(0))
      return false;
  }
  CheckRejects();
  return true;
}

// Where no worker feeds, because the scheduler does not look after this database, we do, until our families
// are drained: others may never be. Returns why something waits.
std::optional<pg::Problem> Cutback::Feed() const {
  pg::SessionLock lock(ReverseFeedLock(migration_.name), ExclusiveLock);
  if (!lock.TryTake()) {
    Spi::Commit();
    pg::Sleep(kLookAgainMs);
    return std::nullopt;
  }
  ReverseFeed feed(migration_);
  for (;;) {
    bool const has_sent = feed.SendSome() > 0 || feed.has_more();
    if ((!has_sent && !feed.waits()) || RestMs() <= 0) break;
    bool const is_drained = IsDrained();
    Spi::Commit();
    if (is_drained) return std::nullopt;
    if (!has_sent) pg::Sleep(kFeedAgainMs);
  }
  if (feed.problem()) pg::Sleep(kFeedAgainMs);
  return feed.problem();
}

// A feed that has nothing to write does not notice that Redis has lost what it had, such as in a fail-over.
bool Cutback::HasAllBatches() const {
  try {
    return !NoteLostBatches(migration_);
  } catch (const Failure &failure) {
    // Who feeds has written a position meanwhile.
    if (failure.sqlstate() != ERRCODE_T_R_SERIALIZATION_FAILURE) throw;
    return false;
  }
}

void Cutback::Drain() {
  for (std::optional<pg::Problem> problem; !discards_;) {
    bool const is_drained = IsDrained();
    Spi::Commit();
    if (is_drained && HasAllBatches()) return;
    if (RestMs() <= 0)
      throw Failure(
          ERRCODE_QUERY_CANCELED, "the reverse feed did not write all changes in time",
          problem ? problem->message + "." : "",
          "SELECT * FROM redis_migrate.reverse_feeds shows how many wait; a longer max_wait gives it "
          "more time.");
    problem = Feed();
  }
}

// Live sync must have come to every write to Redis before the tables were fenced: these are late writes. Of a
// family in state both it may note what the reverse feed has yet to write, such as that a key expires.
void Cutback::WaitForBoth(Masters &masters) {
  for (;;) {
    Barrier(migration_, GetUserId()).WaitForNow(masters, until_ms_);
    bool const is_drained = discards_ || IsDrained();
    Spi::Commit();
    if (is_drained) return SettleDeletions();
    Drain();
  }
}

// Nobody writes to the tables, and Redis has what the reverse feed has written: rows and keys are the same,
// unless the one or the other is wrong.
void Cutback::Compare(Masters &masters) {
  if (!round_trip_) return;
  record_->Take("comparing");
  Spi::Commit();
  round_trip_->Require(
      RoundTrip::kLooks,
      [&] {
        RequireRest();
        WaitForBoth(masters);
        CheckLateWrites();  // of a writer that nobody has fenced
        Spi::Commit();
      },
      "redis_migrate.stop_reverse and start_reverse have all rows written once more; or discard_changes => "
      "true.");
}

void Cutback::GiveBack(Masters &masters) {
  LockFamilies();
  while (HasNewDeletions() || (!discards_ && !IsDrained())) {
    Spi::Commit();
    RequireRest();
    WaitForBoth(masters);
    LockFamilies();  // live sync notes nothing while we have it
  }
  CheckStates();
  CheckLateWrites();
  for (const std::string &pattern : patterns_)
    ChangeFamilyState(migration_.name, pattern, "redis", "cutback " + std::to_string(record_->id()));
  record_->Take("resuming");
  Spi::Commit();
}

void Cutback::Execute() {
  Check();
  std::string const live = FindLiveObstacle(migration_.name);
  if (!live.empty())
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "migration \"" + migration_.name + "\" cannot be cut back now",
                  "The tables would not follow Redis, because " + live + ".",
                  "SELECT redis_migrate.start(" + pg::QuoteLiteral(migration_.name) +
                      ", live => true); SELECT * FROM redis_migrate.live_sync.");
  Spi::Commit();
  Choose();
  try {
    pg::WaitLimit const limit(until_ms_ + kGraceMs, TookLonger());
    Fence();
    record_->Take("draining");
    Spi::Commit();
    Drain();
    record_->Take("waiting");
    Spi::Commit();
    Masters masters(migration_.server, GetUserId());
    WaitForBoth(masters);
    Compare(masters);
    GiveBack(masters);
  } catch (...) {
    pg::Problem const problem = pg::CurrentProblem();
    pg::RollBackAfter(problem);
    if (record_) UndoCutover(migration_, *record_, problem);
    throw;
  }
  // Who cancels it now would be told that nothing has changed.
  pg::WithoutCancel without_cancel;
  CompleteCutover(migration_, *record_, std::nullopt);
  pg::Report(NOTICE,
             "cutback " + std::to_string(record_->id()) + " of migration \"" + migration_.name +
                 "\": the families belong to Redis, and the tables are fenced",
             "",
             "Once nobody writes to the tables any more: SELECT redis_migrate.unfence(" + Arguments() + ").");
}

}  // namespace
}  // namespace prm

// redis_migrate.cutback(migration text, pattern text, discard_changes boolean, max_wait interval, force
// boolean): see the SQL comment. Errors: 2D000 in a transaction block; 42704, 42501; 22023; 55006 while
// another session cuts over or back; 55000 if something speaks against it; 57014, 55P03 if it takes too long;
// those of FenceTables.
PRM_FUNCTION(cutback) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.cutback commits after each step");
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  std::optional<std::string> const pattern = pg::OptionalTextArgument(fcinfo, 1);
  bool const discards = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
  int64 const wait_ms = pg::DurationArgument(fcinfo, 3, "max_wait", pg::kMillisecond, pg::kDay) / 1000;
  bool const fences_others = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
  pg::Spi spi(true);
  Migration const migration = LoadMigration(name);
  CutoverLock const lock(name, migration.server);
  SettleUnfinished(migration);
  Cutback(migration, PatternsOf(migration, pattern), wait_ms, discards, fences_others).Execute();
  PG_RETURN_VOID();
}
