// The launcher: starts a scheduler in each database of pg_redis_migrate.databases that needs one, and saves
// the states of rate limits and lockouts now and then. It is connected to no database; its only state is that
// of databases.h.
#include "lockout/lockout_table.h"
#include "pg/arguments.h"
#include "pg/settings.h"
#include "pg/work_signal.h"
#include "ratelimit/memory.h"
#include "worker/databases.h"
#include "worker/launch.h"
#include "worker/preload.h"
#include "worker/utility_hook.h"
#include "worker/worker_main.h"

namespace prm::worker {
namespace {

constexpr int64 kNapMs = 60 * 1000;
constexpr int kRestartSeconds = 10;
// datconnlimit of a database whose DROP was interrupted; minor releases of 2023 introduced it.
constexpr int32 kInvalidDatabase = -2;

// The OID of a database, or InvalidOid. Scans the table: a process that is connected to no database may not
// have the index.
Oid FindDatabase(const char *name) {
  return pg::Call([&] {
    Relation relation = table_open(DatabaseRelationId, AccessShareLock);
    SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, nullptr, 0, nullptr);
    Oid database = InvalidOid;
    for (HeapTuple tuple; !OidIsValid(database) && HeapTupleIsValid(tuple = systable_getnext(scan));) {
      auto *form = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
      if (form->datallowconn && form->datconnlimit != kInvalidDatabase &&
          strcmp(NameStr(form->datname), name) == 0)
        database = form->oid;
    }
    systable_endscan(scan);
    table_close(relation, AccessShareLock);
    return database;
  });
}

// The databases that the setting names. Warns of each other name once; `told` has those.
std::vector<Oid> ListedDatabases(std::set<std::string> &told) {
  std::vector<std::string> names;
  char *text = pg::CString(pg::settings::databases != nullptr ? pg::settings::databases : "");
  List *list = nullptr;
  if (!pg::Call([&] { return SplitIdentifierString(text, ',', &list); })) {
    if (told.insert(text).second) pg::Report(WARNING, "pg_redis_migrate.databases is not a list of names");
    return {};
  }
  std::vector<Oid> databases;
  ListCell *cell;
  foreach (cell, list) {
    auto *name = static_cast<const char *>(lfirst(cell));
    Oid const database = FindDatabase(name);
    if (OidIsValid(database)) {
      told.erase(name);
      databases.push_back(database);
    } else if (told.insert(name).second) {
      pg::Report(WARNING, std::string("database \"") + name +
                              "\" of pg_redis_migrate.databases does not exist or accepts no connections");
    }
  }
  return databases;
}

class Launcher {
 public:
  void Look() {
    SetState(State::kRunning);
    CountWakeup();
    int64 nap = kNapMs;
    for (long due : {ratelimit::SaveIfDue(), lockout::LockoutTable::SaveIfDue()})
      if (due >= 0) nap = std::min(nap, int64{due});
    std::vector<Oid> listed;
    pg::Call([] { StartTransactionCommand(); });
    {
      pg::Context context("redis_migrate launcher");
      pg::SwitchContext in_context(context.get());
      listed = ListedDatabases(told_);
    }
    pg::Call([] { CommitTransactionCommand(); });
    if (int left_out = ListDatabases(listed); left_out > 0 && told_.insert("").second)
      pg::Report(WARNING, std::to_string(left_out) + " databases of pg_redis_migrate.databases are left out",
                 "Only the first 64 are scheduled.");
    std::vector<Oid> const needy = DatabasesInNeed(&nap);
    for (Oid database : needy) {
      LaunchOutcome const outcome = Launch({Kind::kScheduler, database});
      if (outcome == LaunchOutcome::kStarted || outcome == LaunchOutcome::kDuplicate) {
        waits_ = false;
        continue;
      }
      if (!std::exchange(waits_, true)) {
        LaunchProblem const problem = Describe(outcome);
        pg::Report(WARNING, "the scheduler of a database waits: " + problem.message, "", problem.hint);
      }
    }
    // Waiting for a fork resets the latch, so other requests may have been missed.
    if (!needy.empty()) nap = 0;
    SetState(State::kSleeping);
    pg::WaitForLatch(nap);
  }

 private:
  std::set<std::string> told_;
  bool waits_ = false;  // the log has told that no scheduler can be started
};

}  // namespace

void RunLauncher() {
  Launcher launcher;
  for (;;) {
    std::optional<Problem> problem = Try([&] { launcher.Look(); });
    if (!problem) continue;
    Log(WARNING, *problem, "launcher");
    SetError(problem->SqlState().c_str(), problem->message);
    Try([] { pg::WaitForLatch(1000); });
  }
}

void Preload() {
  if (IsBinaryUpgrade) return;
  pg::Call([] {
    BackgroundWorker launcher = {};
    launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
    launcher.bgw_restart_time = kRestartSeconds;
    strlcpy(launcher.bgw_name, "redis_migrate launcher", BGW_MAXLEN);
    strlcpy(launcher.bgw_type, launcher.bgw_name, BGW_MAXLEN);
    strlcpy(launcher.bgw_library_name, "pg_redis_migrate", sizeof launcher.bgw_library_name);
    strlcpy(launcher.bgw_function_name, "prm_launcher_main", BGW_MAXLEN);
    RegisterBackgroundWorker(&launcher);
  });
  InstallUtilityHook();
  pg::signal_work = &WakeNow;
  pg::signal_save = &WakeLauncher;
}

}  // namespace prm::worker
