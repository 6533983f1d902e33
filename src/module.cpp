#include "cutover/fence_watch.h"
#include "lockout/attempt_queue.h"
#include "lockout/granted_functions.h"
#include "lockout/lockout_table.h"
#include "pg/commit_signal.h"
#include "pg/entry.h"
#include "pg/settings.h"
#include "pg/shared_memory.h"
#include "ratelimit/granted_functions.h"
#include "ratelimit/memory.h"
#include "worker/live_workers.h"
#include "worker/part_workers.h"
#include "worker/preload.h"

extern "C" {
PG_MODULE_MAGIC_EXT(.name = "pg_redis_migrate", .version = PRM_VERSION);
}

namespace {

prm::pg::SharedArea *const kSharedAreas[] = {&prm::worker::worker_area, &prm::ratelimit::memory_area,
                                             &prm::lockout::lockout_area, &prm::lockout::attempt_area,
                                             &prm::pg::commit_signal_area};

void Init() {
  prm::pg::settings::Define();
  prm::new_helpers = &prm::worker::NewPartWorkers;
  prm::new_link_workers = &prm::worker::NewLinkWorkers;
  prm::new_applier_workers = &prm::worker::NewApplierWorkers;
  prm::look_after_fences = &prm::LookAfterFences;
  prm::pg::HintGrants(prm::ratelimit::kGrantedFunctions);
  prm::pg::HintGrants(prm::lockout::kGrantedFunctions);
  if (!process_shared_preload_libraries_in_progress) return;
  prm::pg::RequestSharedAreas(kSharedAreas, std::size(kSharedAreas));
  prm::worker::Preload();
}

}  // namespace

void _PG_init(void) { prm::pg::Enter(&Init); }
