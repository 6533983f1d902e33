// CALL redis_migrate.cutover(…): hands families over to PostgreSQL while the masters hold writes back.
//
// CLIENT PAUSE … WRITE keeps commands of clients waiting and executes them afterwards. Once live sync has
// applied all that was written before, Redis and the tables are equal and stay so until the pause ends. The
// new state is committed then, or everything is undone.
#include "cutover/barrier.h"
#include "cutover/fenced_users.h"
#include "cutover/key_sample.h"
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
#include "pg/wait.h"
#include "reverse/ledger_names.h"

namespace prm {
namespace {

using pg::Failure;
using pg::Spi;

struct CutoverOptions {
  std::vector<std::string> users;
  int64 pause_ms = 0;
  int compare_keys = 0;
  int64 verified_within_us = 0;
  bool no_way_back = false;
  bool force = false;
};

class Cutover {
 public:
  Cutover(const Migration &migration, CutoverRecord::Parameters parameters, CutoverOptions options)
      : migration_(migration),
        parameters_(std::move(parameters)),
        options_(std::move(options)),
        barrier_(migration_, GetUserId()) {}

  void Execute();

 private:
  void Check();
  void RequireWayBack();
  void RequireRoundTrip(bool is_paused);
  Failure TookLonger() const;
  void RequireRest() const;
  void Begin();
  void HoldWrites();
  void Fence();
  void Commit();
  int64 RestMs() const;

  const Migration &migration_;
  CutoverRecord::Parameters parameters_;
  CutoverOptions options_;
  Barrier barrier_;
  std::optional<Masters> masters_;
  std::optional<KeySample> sample_;
  std::optional<RoundTrip> way_back_;
  std::optional<CutoverRecord> record_;
  bool has_begun_ = false;                       // the record is committed
  std::vector<redis::ReplicationPoint> points_;  // at which the masters stand still
  std::vector<FencedUser> users_;
  std::vector<KeyId> unsettled_;  // which the verification could not compare
  int64 paused_at_ms_ = 0;        // monotonic
  bool has_touched_ = true;       // keys that changed since the verification were all compared
};

// Without a way back, nothing that the application will write here could be brought to Redis.
void Cutover::RequireWayBack() {
  std::map<std::string, ReverseProblem> problems;
  std::vector<ReverseMapping> reverses;
  for (const std::string &pattern : parameters_.patterns)
    for (ReverseMapping &reverse : FindFedMappings(migration_, pattern, problems))
      reverses.push_back(std::move(reverse));
  std::map<std::string, std::vector<Oid>> watched;
  for (const ReverseMapping &reverse : reverses)
    watched[reverse.mapping.pattern].push_back(reverse.target.oid);
  for (const auto &[pattern, targets] : watched)
    for (const std::string &mapping : FindUnnoted(migration_, {pattern}, watched))
      problems[mapping] = {
          "its table is not watched: the reverse feed notes changes only of that of the mapping with the "
          "reverse query",
          "Such a family goes back with discard_changes => true alone."};
  if (problems.empty()) {
    if (std::string const named = ListNamedByLedger(reverses); !named.empty())
      pg::Report(WARNING,
                 "rows that are inserted after the cutover will have no way back, of mappings " + named,
                 kWhyNameless, "Changes and deletions of the other rows go back to Redis.");
    Spi::Commit();
    way_back_.emplace(migration_, parameters_.patterns, std::move(reverses));
    return;
  }
  std::string detail;
  for (const auto &[mapping, problem] : problems)
    detail += (detail.empty() ? "Mapping \"" : "\nMapping \"") + mapping + "\": " + problem.problem + ".";
  throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the cutover of migration \"" + migration_.name + "\" would have no way back", detail,
                (problems.begin()->second.hint.empty() ? "" : problems.begin()->second.hint + " Or: ") +
                    "no_way_back => true.");
}

// While keys change, only those count that have not.
void Cutover::RequireRoundTrip(bool is_paused) {
  if (!way_back_) return;
  way_back_->Require(
      is_paused ? 1 : RoundTrip::kLooks,
      // A row that is behind tells nothing of a key that does not change meanwhile.
      [&] { barrier_.WaitForNow(*masters_, pg::MonotonicMs() + options_.pause_ms / 2); },
      "redis_migrate.verify tells whether the rows are wrong. Or no_way_back => true.");
}

void Cutover::Check() {
  for (const std::string &pattern : parameters_.patterns)
    if (std::string const state = FamilyState(migration_.name, pattern); state != "redis")
      throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "family " + pattern + " of migration \"" + migration_.name + "\" is in state " + state,
                    "Only families of Redis can be cut over.",
                    "Name a pattern. SELECT * FROM redis_migrate.families WHERE migration = " +
                        pg::QuoteLiteral(migration_.name) + ".");
  std::string const live = FindLiveObstacle(migration_.name);
  if (!live.empty())
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "migration \"" + migration_.name + "\" cannot be cut over now", "Because " + live + ".",
                  "SELECT redis_migrate.start(" + pg::QuoteLiteral(migration_.name) +
                      ", live => true); SELECT * FROM redis_migrate.live_sync.");
  if (!options_.no_way_back) RequireWayBack();
  if (std::string const sharers = ListSharers(migration_, parameters_.patterns, false); !sharers.empty())
    pg::Report(
        WARNING, "the tables have rows of other families, too: " + sharers,
        "Tables are fenced as a whole: this ends a fence that a cutback of those has left, and a cutback "
        "refuses who writes rows of any of them, so that it needs force while others stay PostgreSQL's.",
        "Cut families of one table over, and back, together.");
  TimestampTz const verified_since = GetCurrentTimestamp() - options_.verified_within_us;
  std::vector<std::string> obstacles = FindObstacles(migration_, parameters_.patterns, verified_since);
  unsettled_ = FindUnsettled(migration_, parameters_.patterns, verified_since);
  if (unsettled_.size() > static_cast<size_t>(options_.compare_keys)) {
    obstacles.push_back(std::to_string(unsettled_.size()) +
                        " keys never held still while they were verified, and compare_keys are fewer");
    unsettled_.clear();
  }
  std::string hint = "CALL redis_migrate.verify(" + pg::QuoteLiteral(migration_.name) +
                     "); SELECT * FROM redis_migrate.rejects; or force => true.";
  if (parameters_.to_state == "both")
    if (std::string const counters = FindCounters(migration_, parameters_.patterns); !counters.empty()) {
      if (obstacles.empty()) hint = "Or force => true, if they are none.";
      hint = "to_state => 'postgres' for counters. " + hint;
      obstacles.push_back("mappings " + counters +
                          " may be of counters, which have one writer and one reader");
    }
  Spi::Commit();
  if (obstacles.empty()) return;
  std::string list;
  for (const std::string &obstacle : obstacles) list += (list.empty() ? "" : "; ") + obstacle;
  if (options_.force) return pg::Report(WARNING, "the cutover goes on, although " + list);
  throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "migration \"" + migration_.name + "\" should not be cut over", "Because " + list + ".",
                hint);
}

// Everything that takes time, or may fail, and does not need the pause.
void Cutover::Begin() {
  masters_.emplace(migration_.server, GetUserId());
  masters_->RequireRights(parameters_.fence, options_.users);
  if (parameters_.fence == "acl") {
    users_ = masters_->FetchUsers(options_.users);
    if (std::count(options_.users.begin(), options_.users.end(), "default") == 0 &&
        masters_->LetAnybodyWrite())
      pg::Report(WARNING, "user \"default\" of Redis needs no password, may write, and is not fenced",
                 "Clients that the fence refuses may come back without a name.",
                 "ACL SETUSER default off, or name it among the users.");
  }
  sample_.emplace(migration_, parameters_.patterns);
  sample_->Choose(*masters_, static_cast<size_t>(options_.compare_keys));
  sample_->Prepare(*masters_);
  // If it cannot be in step while it is written to, the pause would be long, too.
  barrier_.WaitForNow(*masters_, pg::MonotonicMs() + options_.pause_ms / 2);
  if (way_back_) way_back_->Choose();
  RequireRoundTrip(false);
  int64 const until_ms = pg::MonotonicMs() + options_.pause_ms / 2;
  barrier_.WaitForNow(*masters_, until_ms);
  WaitUntilUnfenceable(migration_, parameters_.patterns, until_ms);
  Spi::Commit();
  LockFamiliesForChange(migration_.name);
  for (const std::string &pattern : parameters_.patterns)
    ChangeFamilyState(migration_.name, pattern, "cutting", "cutover");
  record_.emplace(parameters_);
  AddFencedUsers(*record_, users_);
  record_->TakePause(options_.pause_ms);
  Spi::Commit();
  has_begun_ = true;
}

// Until the pause ends, less what a commit may take.
int64 Cutover::RestMs() const {
  int64 const margin_ms = options_.pause_ms / 5;
  return paused_at_ms_ + options_.pause_ms - margin_ms - pg::MonotonicMs();
}

Failure Cutover::TookLonger() const {
  return {
      ERRCODE_QUERY_CANCELED,
      "the cutover took longer than writes can be held back, " + std::to_string(options_.pause_ms) + " ms",
      "",
      "Try again, with a longer max_pause, or at a time with fewer writes. steps_ms of "
      "redis_migrate.cutovers shows what took long."};
}

void Cutover::RequireRest() const {
  if (RestMs() <= 0) throw TookLonger();
}

void Cutover::HoldWrites() {
  paused_at_ms_ = pg::MonotonicMs();
  masters_->Pause(options_.pause_ms);
  record_->TakeInPause("waiting");
  Spi::Commit();
  points_ = barrier_.WaitForStandstill(*masters_, pg::MonotonicMs() + RestMs());
  record_->TakeInPause("comparing");
  Spi::Commit();
  has_touched_ = options_.compare_keys == 0 ||
                 sample_->AddTouched(*masters_, static_cast<size_t>(options_.compare_keys));
  sample_->Add(*masters_, std::move(unsettled_));
  int64 const compared = sample_->Compare(*masters_);
  RequireRoundTrip(true);
  record_->SaveCompared(compared, sample_->touched());
}

void Cutover::Fence() {
  record_->TakeInPause("fencing");
  Spi::Commit();
  if (parameters_.fence == "acl") masters_->TakeWrite(users_);
  if (parameters_.fence == "kill") masters_->KillClients();
  SaveFencedRules(*record_, users_);
}

void Cutover::Commit() {
  record_->TakeInPause("committing");
  Spi::Commit();
  // Nothing was written since the tables were seen to have everything: the pause has held.
  if (!(masters_->FetchPoints() == points_))
    points_ = barrier_.WaitForStandstill(*masters_, pg::MonotonicMs() + RestMs());
  RequireRest();
  if (!LockFamiliesWithin(migration_.name, RestMs())) throw TookLonger();
  UnfenceTables(migration_, parameters_.patterns, pg::MonotonicMs() + RestMs());
  for (const std::string &pattern : parameters_.patterns) {
    if (FamilyState(migration_.name, pattern) != "cutting")
      throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "somebody has changed the state of family " + pattern + " meanwhile");
    ChangeFamilyState(migration_.name, pattern, parameters_.to_state,
                      "cutover " + std::to_string(record_->id()));
  }
  record_->Take("resuming");
  RequireRest();  // the locks may have taken it
  Spi::Commit();
}

void Cutover::Execute() {
  Check();
  try {
    Begin();
    HoldWrites();
    Fence();
    Commit();
  } catch (...) {
    pg::Problem const problem = pg::CurrentProblem();
    pg::RollBackAfter(problem);
    // The sample keeps prepared mappings, which cannot be freed before.
    sample_.reset();
    masters_.reset();
    way_back_.reset();
    if (has_begun_) UndoCutover(migration_, *record_, problem);
    throw;
  }
  // Who cancels it now would be told that nothing has changed.
  pg::WithoutCancel without_cancel;
  int64 const committed_ms = pg::MonotonicMs();
  std::vector<Failure> const failures = masters_->Resume();
  int64 const paused_ms = pg::MonotonicMs() - paused_at_ms_;
  CompleteCutover(migration_, *record_, failures);
  record_->SavePause(static_cast<double>(paused_ms));
  Spi::Commit();
  if (committed_ms > paused_at_ms_ + options_.pause_ms)
    pg::Report(WARNING, "the pause of Redis had ended when the cutover was committed",
               "What was written in between is a late write.", "SELECT * FROM redis_migrate.late_writes.");
  if (!has_touched_)
    pg::Report(NOTICE, "keys that changed since the last verification were compared only at random",
               sample_->touched() < 0 ? "No verification of all mappings tells which they are."
                                      : "There are more than compare_keys of them, or more than are kept.");
  std::string list;
  for (const std::string &pattern : parameters_.patterns) list += (list.empty() ? "" : ", ") + pattern;
  pg::Report(NOTICE, "cutover " + std::to_string(record_->id()) + " of migration \"" + migration_.name +
                         "\": " + list + " is now in state " + parameters_.to_state +
                         "; writes were held back for " + std::to_string(paused_ms) + " ms");
}

}  // namespace
}  // namespace prm

// redis_migrate.cutover(migration text, fence text, pattern text, users text[], to_state text, max_pause
// interval, compare_keys integer, verified_within interval, no_way_back boolean, force boolean): see the SQL
// comment. Errors: 2D000 in a transaction block; 42704, 42501; 22023; 55006 while another session cuts over;
// 55000 if something speaks against it; 57014 if it takes too long; those of Masters, Barrier and KeySample.
PRM_FUNCTION(cutover) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.cutover commits after each step");
  CutoverRecord::Parameters parameters;
  CutoverOptions options;
  parameters.migration = pg::TextArgument(fcinfo, 0, "migration");
  parameters.fence = pg::TextArgument(fcinfo, 1, "fence");
  pg::CheckKeyword(parameters.fence, "fence", {"acl", "kill", "confirmed"});
  std::optional<std::string> const pattern = pg::OptionalTextArgument(fcinfo, 2);
  options.users = pg::OptionalTextArrayArgument(fcinfo, 3).value_or(std::vector<std::string>());
  if ((parameters.fence == "acl") == options.users.empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                  parameters.fence == "acl" ? "fence 'acl' needs the users to take the right to write from"
                                            : "users are only for fence 'acl'",
                  "", "users => '{app}'; redis-cli CLIENT LIST shows by which users clients are connected.");
  parameters.to_state = pg::TextArgument(fcinfo, 4, "to_state");
  pg::CheckKeyword(parameters.to_state, "to_state", {"postgres", "both"});
  options.pause_ms = pg::DurationArgument(fcinfo, 5, "max_pause", {100 * 1000, "100 ms"}, pg::kMinute) / 1000;
  options.compare_keys = pg::IntegerArgument(fcinfo, 6, "compare_keys", 0, 100000);
  options.verified_within_us = pg::DurationArgument(fcinfo, 7, "verified_within", pg::kNoTime);
  options.no_way_back = !PG_ARGISNULL(8) && PG_GETARG_BOOL(8);
  options.force = !PG_ARGISNULL(9) && PG_GETARG_BOOL(9);
  pg::Spi spi(true);
  Migration const migration = LoadMigration(parameters.migration);
  parameters.patterns = PatternsOf(migration, pattern);
  RequireSource(migration, "scan");  // a server
  CutoverLock const lock(migration.name, migration.server);
  SettleUnfinished(migration);
  Cutover(migration, parameters, options).Execute();
  PG_RETURN_VOID();
}
