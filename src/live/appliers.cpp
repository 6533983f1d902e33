#include "live/appliers.h"

#include "live/follower.h"
#include "live/live_links.h"
#include "mapping/migration_lock.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/own_write.h"
#include "pg/rollback.h"
#include "pg/spi.h"
#include "pg/wait.h"

namespace prm {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

std::unique_ptr<LiveWorkers> (*new_applier_workers)() = nullptr;

namespace {

constexpr int64 kStartEveryMs = 2000;

// A process that applies a share of the changes, but does not lead.
class Applier {
 public:
  Applier(int64 run_id, int number) : run_record_(RunRecord::Join(run_id, &name_, &parameters_)) {
    lock_.emplace(name_);
    run_record_ = RunRecord::Join(run_id, &name_, &parameters_);  // it may have ended meanwhile
    run_record_.SetShare(number);
    migration_.emplace(LoadMigration(name_));
    routing_.emplace(*migration_, parameters_.priority, parameters_.mapping);
    share_ = {number, LiveRecord::ReadAppliers(name_)};
    Spi::Commit();
    RequireLeader();
    links_.Open(parameters_.source == "scan" ? std::vector<LiveRecord>{LiveRecord(run_id)}
                                             : LinksOf(run_id, migration_->server));
    links_.SetShare(share_);
    links_.watches.front()->set_beside([this] { RequireLeader(); });
  }

  // Returns when a full sync is needed, which it has written down.
  void Execute() {
    FollowedRun run(*migration_, *routing_, parameters_.source, run_record_);
    try {
      FollowLinks(run, links_);
    } catch (const FullSyncNeeded &needed) {
      Note({std::nullopt, needed.why});
    }
  }

  // Tells the process that leads, if there is one, unless only this one was asked to end.
  void Fail(const pg::Problem &problem) {
    pg::WithoutCancel hold;
    pg::RollBackAfter(problem);
    if (problem.cancelled() || !lock_->HasLeader()) return;
    Note({problem.SqlState(), problem.message});
  }

 private:
  void Note(const ApplierFailure &failure) {
    links_.records.front().NoteFailure(failure);
    Spi::Commit();
  }

  void RequireLeader() {
    if (!lock_->HasLeader())
      throw Failure(
          ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
          "no process leads run " + std::to_string(run_record_.id()) + " of migration \"" + name_ + "\"",
          "The changes applied so far are stored, with the position.", "redis_migrate.start continues it.");
  }

  std::string name_;
  RunParameters parameters_;
  RunRecord run_record_;
  std::optional<MemberLock> lock_;
  std::optional<Migration> migration_;
  std::optional<Routing> routing_;
  stream::KeyShare share_;
  Links links_;
};

}  // namespace

void FollowLinks(FollowedRun &run, Links &links) {
  if (links.records.front().link() == 0)
    Follower(run, links.records.front(), *links.watches.front()).Follow();
  std::vector<std::unique_ptr<Follower>> followers;
  std::vector<const LinkWatch *> watches;
  for (size_t i = 0; i < links.records.size(); ++i) {
    followers.push_back(std::make_unique<Follower>(run, links.records[i], *links.watches[i]));
    watches.push_back(links.watches[i].get());
  }
  SlotOwners owners(std::move(watches));
  Follower::FollowCluster(followers, owners);
}

Appliers::~Appliers() { workers_->StopAll(record_.run_id()); }

void Appliers::Look() {
  if (record_.share().is_all()) return;
  std::optional<ApplierFailure> const failure = record_.ReadFailure();
  Spi::Commit();
  if (failure && !failure->sqlstate) throw FullSyncNeeded{failure->message};
  if (failure) throw Failure(pg::SqlStateCode(*failure->sqlstate), failure->message);
  int64 const now_ms = pg::MonotonicMs();
  for (int number = 1; number < record_.share().of; ++number) {
    if (workers_->Exists(record_.run_id(), number)) continue;
    int64 &started_ms = started_ms_[number];
    if (started_ms != 0 && now_ms - started_ms < kStartEveryMs) continue;
    started_ms = now_ms;
    std::optional<std::string> const problem = workers_->Start(record_.run_id(), number);
    Spi::Commit();
    if (problem && !std::exchange(told_, true))
      pg::Report(WARNING, "applier " + std::to_string(number) + " of run " +
                              std::to_string(record_.run_id()) + " waits for a worker: " + *problem);
  }
}

void StopAppliersLeft(const std::string &migration) {
  int64 run_id = 0;
  {
    pg::AsExtensionOwner as_owner;
    run_id =
        Spi::Execute("SELECT coalesce(max(run_id), 0) FROM redis_migrate.run WHERE migration = $1 AND live",
                     {SqlParam::Text(migration)})[0]
            .Int8(0);
  }
  Spi::Commit();
  new_applier_workers()->StopAll(run_id);
}

}  // namespace prm

// redis_migrate.apply_stream(run_id bigint, applier integer): see the SQL comment. Takes the lock of a member
// of the migration's run. Returns when a full sync is needed. Errors: 2D000 in a transaction block, 55000 in
// a session, or when the run is not in progress or nobody leads it, 42704 no such run of the caller's, 55006,
// and those of redis_migrate.follow, which are noted for the process that leads.
PRM_FUNCTION(apply_stream) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.apply_stream commits after each batch");
  if (MyBgworkerEntry == nullptr)
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "redis_migrate.apply_stream is for background workers");
  if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
    throw Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "run_id and applier must not be null");
  pg::Spi spi(true);
  pg::OwnWrite const own_write;
  Applier applier(PG_GETARG_INT64(0), PG_GETARG_INT32(1));
  try {
    applier.Execute();
  } catch (...) {
    applier.Fail(pg::CurrentProblem());
    throw;
  }
  PG_RETURN_VOID();
}
