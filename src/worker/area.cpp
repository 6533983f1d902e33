#include "worker/area.h"

#include "pg/settings.h"
#include "worker/preload.h"

namespace prm::worker {

Area *area = nullptr;

namespace {

constexpr int kLateWorkers = 16;  // in a server that did not preload the library

size_t SizeFor(int slots) { return offsetof(Area, slots) + sizeof(Slot) * slots; }

// One slot for the launcher, and one for the scheduler of each database.
int PreloadedSlots() { return pg::settings::max_workers + 1 + kMaxDatabases; }

constexpr char kTrancheName[] = "pg_redis_migrate workers";
int tranche_of_process = 0;

void RegisterTranche(Area *memory) {
  if (tranche_of_process == memory->lock.tranche) return;
  tranche_of_process = memory->lock.tranche;
  pg::NameLockTranche(memory->lock.tranche, kTrancheName);
}

// Must not raise errors. The memory is zeroed.
void Initialize(Area *memory, int workers, int slots) {
  LWLockInitialize(&memory->lock, pg::NewLockTranche(kTrancheName));
  if (!pg_strong_random(&memory->incarnation, sizeof memory->incarnation))
    memory->incarnation = GetCurrentTimestamp();
  memory->worker_limit = workers;
  memory->slot_count = slots;
}

void InitializePreloaded(void *memory) {
  auto *fresh = static_cast<Area *>(memory);
  Initialize(fresh, pg::settings::max_workers, PreloadedSlots());
  // Before recovery pg_control still tells how the server last ended.
  bool crc_is_good = false;
  ControlFileData *control = get_controlfile(DataDir, &crc_is_good);
  fresh->after_crash =
      crc_is_good && control->state != DB_SHUTDOWNED && control->state != DB_SHUTDOWNED_IN_RECOVERY;
  pfree(control);
  RegisterTranche(fresh);
  area = fresh;  // every process of the server inherits it
}

void InitializeLate(void *memory) {
  memset(memory, 0, SizeFor(kLateWorkers));
  Initialize(static_cast<Area *>(memory), kLateWorkers, kLateWorkers);
}

}  // namespace

pg::SharedArea worker_area(
    "pg_redis_migrate workers", [] { return SizeFor(PreloadedSlots()); }, [] { return 0; },
    InitializePreloaded);

bool IsPreloaded() { return worker_area.memory() != nullptr; }

void RequireSlots() {
  if (area != nullptr) return;
  try {
    area = pg::Call([] {
      auto *late = static_cast<Area *>(
          pg::LateSharedMemory("pg_redis_migrate late workers", SizeFor(kLateWorkers), InitializeLate));
      RegisterTranche(late);
      return late;
    });
  } catch (const pg::PgError &error) {
    if (error.sqlstate() != ERRCODE_OUT_OF_MEMORY) throw;
    throw pg::Failure(ERRCODE_OUT_OF_MEMORY, "there is no shared memory left for background workers",
                      std::string("PostgreSQL says: ") + error.what() + ".",
                      "Add pg_redis_migrate to shared_preload_libraries and restart the server.");
  }
}

int64 Incarnation() { return area->incarnation; }
int WorkerLimit() { return area->worker_limit; }
bool AfterCrash() { return area->after_crash; }

}  // namespace prm::worker
