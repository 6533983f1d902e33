// Shared memory and hooks of the workers, if the library is preloaded.
#pragma once

#include "pg/shared_memory.h"

namespace prm::worker {

extern pg::SharedArea worker_area;

// Registers the launcher and the hook of utility_hook.cpp; from _PG_init, while libraries are preloaded.
void Preload();

}  // namespace prm::worker
