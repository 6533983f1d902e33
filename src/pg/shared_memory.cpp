#include "pg/shared_memory.h"

namespace prm::pg {
namespace {

SharedArea *const *all_areas = nullptr;
size_t area_count = 0;
shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;

// Whether the exiting postmaster shut the server down in an orderly way. Its exit code does not tell: an
// immediate shutdown also exits with 0, and kills processes while they change the memory.
bool WasShutDown() {
  bool intact = false;
  const ControlFileData *control = get_controlfile(DataDir, &intact);
  return intact && (control->state == DB_SHUTDOWNED || control->state == DB_SHUTDOWNED_IN_RECOVERY);
}

}  // namespace

void SharedArea::Request() const {
  RequestAddinShmemSpace(size_());
  if (int count = lock_count_(); count > 0) RequestNamedLWLockTranche(name_, count);
}

void SharedArea::Attach() {
  bool found = false;
  if (size_t bytes = size_(); bytes > 0) {
    memory_ = ShmemInitStruct(name_, bytes, &found);
    if (!found) {
      memset(memory_, 0, bytes);
      initialize_(memory_);
    }
  }
  if (lock_count_() > 0) locks_ = GetNamedLWLockTranche(name_);
  if (at_shutdown_ != nullptr && !IsUnderPostmaster)
    on_shmem_exit(
        [](int code, Datum function) {
          // After a crash the memory cannot be trusted.
          if (code == 0 && WasShutDown()) reinterpret_cast<void (*)()>(DatumGetPointer(function))();
        },
        PointerGetDatum(reinterpret_cast<void *>(at_shutdown_)));
}

void RequestSharedAreas(SharedArea *const *areas, size_t count) {
  all_areas = areas;
  area_count = count;
  previous_request_hook = shmem_request_hook;
  shmem_request_hook = [] {
    if (previous_request_hook != nullptr) previous_request_hook();
    for (size_t i = 0; i < area_count; i++) all_areas[i]->Request();
  };
  previous_startup_hook = shmem_startup_hook;
  shmem_startup_hook = [] {
    if (previous_startup_hook != nullptr) previous_startup_hook();
    LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
    for (size_t i = 0; i < area_count; i++) all_areas[i]->Attach();
    LWLockRelease(AddinShmemInitLock);
  };
}

}  // namespace prm::pg
