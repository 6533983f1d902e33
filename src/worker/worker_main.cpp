#include "worker/worker_main.h"

#include "connect/database_files.h"
#include "pg/entry.h"
#include "pg/session_settings.h"
#include "pg/settings.h"
#include "pg/shared_text.h"
#include "pg/wait.h"
#include "worker/start_data.h"

namespace prm::worker {
namespace {

int slot_number = -1;
uint32 lent_settings = 0;  // the handle of a pg::SharedText; 0: none

void TakeSignals() {
  // die() rather than a flag: it ends every wait, also those inside PostgreSQL.
  pqsignal(SIGTERM, die);
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  BackgroundWorkerUnblockSignals();
}

// In pg_stat_activity, also if the setting application_name is that of another session.
void NameProcess() { pgstat_report_appname("pg_redis_migrate"); }

void ConnectTo(const Slot &slot) {
  bool const as_superuser = slot.kind == Kind::kScheduler;
  pg::Call([&] {
    BackgroundWorkerInitializeConnectionByOid(slot.database, as_superuser ? InvalidOid : slot.owner,
                                              as_superuser ? 0 : BGWORKER_BYPASS_ROLELOGINCHECK);
    // Not the role that settings of the database or of the owner give a session.
    SetConfigOption("role", "none", PGC_USERSET, PGC_S_SESSION);
    NameProcess();
  });
}

// Nothing tells which runs there are any more. Whoever creates the extension anew at this moment is in the
// way: its first run removes the files.
void RemoveFilesIfDropped() {
  pg::InTransaction([] {
    bool const is_dropped = pg::Call([] {
      return ConditionalLockRelationOid(ExtensionRelationId, ShareLock) &&
             !OidIsValid(get_extension_oid("pg_redis_migrate", true));
    });
    if (is_dropped) RemoveFilesOfOtherRuns({});
  });
}

// Works with the settings of the session that leads, if it has lent them.
void AdoptLentSettings() {
  if (lent_settings == 0) return;
  pg::InTransaction([] {
    std::optional<std::string> const settings = pg::ReadSharedText(lent_settings);
    if (!settings)
      throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "the process that leads has ended");
    pg::AdoptSettings(*settings);
  });
  pg::Call([] { NameProcess(); });
}

void WorkerBody() {
  pg::Call([] { TakeSignals(); });
  RequireSlots();
  StartData data;
  memcpy(&data, MyBgworkerEntry->bgw_extra, sizeof data);
  lent_settings = data.settings;
  if (data.incarnation != Incarnation() || !Attach({slot_number, data.generation})) return;
  Slot const slot = MySlot();
  ConnectTo(slot);
  switch (slot.kind) {
    case Kind::kScheduler:
      return RunScheduler(slot);
    case Kind::kMigration:
      RunMigrationWorker(slot);
      return RemoveFilesIfDropped();
    case Kind::kPart:
      return RunPartWorker(slot);
    case Kind::kVerificationPart:
      return RunVerificationPartWorker(slot);
    case Kind::kLink:
      RunLinkWorker(slot);
      return RemoveFilesIfDropped();
    case Kind::kApplier:
      return RunApplierWorker(slot);
    case Kind::kReverse:
      return RunReverseWorker(slot);
    case Kind::kCutover:
      return RunCutoverWorker(slot);
    case Kind::kSweeper:
      return RunSweeper(slot);
    case Kind::kAttempts:
      return RunAttemptWriter(slot);
    case Kind::kLauncher:
      break;
  }
}

void LauncherBody() {
  pg::Call([] {
    TakeSignals();
    BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
  });
  RequireSlots();
  ClaimRefusal refusal;
  std::optional<Ticket> ticket = Claim({Kind::kLauncher}, InvalidTransactionId, &refusal);
  if (!ticket || !Attach(*ticket)) return;
  RunLauncher();
}

}  // namespace

void Log(int level, const Problem &problem, const std::string &what, const std::string &hint) {
  pg::Call([&] {
    ereport(level, (problem.sqlstate != 0 ? errcode(problem.sqlstate) : 0,
                    errmsg_internal("%s: %s", what.c_str(), problem.message.c_str()),
                    hint.empty() ? 0 : errhint("%s", hint.c_str())));
  });
}

Extension::Extension() {
  // Who drops the extension cancels its workers more than once, and the second time may meet one that looks
  // why.
  pg::WithoutCancel const hold;
  pg::InTransaction([&] {
    auto rows = pg::Spi::Execute(
        R"sql(SELECT extversion::pg_catalog.text, extowner
              FROM pg_catalog.pg_extension
              WHERE extname OPERATOR(pg_catalog.=) 'pg_redis_migrate')sql");
    if (rows.size() == 0) return;
    version_ = rows[0].Text(0);
    owner_ = DatumGetObjectId(rows[0].Value(1));
  });
}

bool Extension::HasChanged() const {
  auto rows = pg::Spi::Execute(
      R"sql(SELECT extversion::pg_catalog.text
            FROM pg_catalog.pg_extension
            WHERE extname OPERATOR(pg_catalog.=) 'pg_redis_migrate')sql");
  return rows.size() == 0 || rows[0].Text(0) != version_;
}

bool Extension::WentAway() const {
  bool changed = false;
  Try([&] { pg::InTransaction([&] { changed = HasChanged(); }); });
  return changed;
}

void CallForJob(const Slot &slot, const std::string &procedure, const std::string &part,
                const std::string &argument) {
  std::string const job = std::to_string(slot.job);
  std::optional<Problem> problem = Try([&] {
    if (MyRequest() != Request::kNone || !Extension().exists()) return;
    AdoptLentSettings();
    SetState(State::kRunning);
    CountWakeup();
    CountRun();
    pg::RunCommand("CALL redis_migrate." + procedure + "(" + job + (argument.empty() ? "" : ", " + argument) +
                   ")");
  });
  if (problem && MyRequest() == Request::kNone) Log(WARNING, *problem, part + " " + job);
}

bool HasRoutine(const char *signature) {
  return !pg::Spi::Execute("SELECT pg_catalog.to_regprocedure($1)", {pg::SqlParam::Text(signature)})[0]
              .IsNull(0);
}

}  // namespace prm::worker

extern "C" {
PGDLLEXPORT void prm_worker_main(Datum slot);
PGDLLEXPORT void prm_launcher_main(Datum unused);
}

// The main functions that background workers are registered with.
void prm_worker_main(Datum slot) {
  prm::worker::slot_number = DatumGetInt32(slot);
  prm::pg::Enter(&prm::worker::WorkerBody);
}
void prm_launcher_main(Datum) { prm::pg::Enter(&prm::worker::LauncherBody); }
