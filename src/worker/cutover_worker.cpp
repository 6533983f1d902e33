// The worker for a cutover or cutback whose session has ended without completing or undoing it: CALLs
// redis_migrate.undo_cutover as the owner of the migration, once. The scheduler has it tried again.
#include "cutover/cutover_record.h"
#include "worker/worker_main.h"

namespace prm::worker {

void RunCutoverWorker(const Slot &slot) {
  Extension extension;
  if (!extension.exists()) return;
  CountWakeup();
  std::string migration;
  std::optional<Problem> problem = Try([&] {
    pg::InTransaction([&] {
      for (const CutoverRecord::Unfinished &cutover : CutoverRecord::FindAllUnfinished())
        if (cutover.id == slot.job && !cutover.is_under_way) migration = cutover.migration;
    });
    if (migration.empty()) return;
    SetState(State::kRunning);
    CountRun();
    pg::RunCommand("CALL redis_migrate.undo_cutover(" + pg::QuoteLiteral(migration) + ")");
  });
  if (!problem || MyRequest() != Request::kNone || extension.WentAway()) return;
  // Somebody else was faster.
  if (problem->sqlstate == ERRCODE_OBJECT_IN_USE) return;
  Log(WARNING, *problem, "an interrupted cutover of migration \"" + migration + "\" waits to be settled");
}

}  // namespace prm::worker
