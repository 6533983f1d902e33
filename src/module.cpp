#include "pg/entry.h"
#include "pg/settings.h"
#include "pg/shared_memory.h"
#include "ratelimit/memory.h"

extern "C" {
PG_MODULE_MAGIC_EXT(.name = "pg_redis_migrate", .version = PRM_VERSION);
}

namespace {

prm::pg::SharedArea *const kSharedAreas[] = {&prm::ratelimit::memory_area};

}  // namespace

void _PG_init(void) {
  prm::pg::Enter(&prm::pg::settings::Define);
  if (process_shared_preload_libraries_in_progress)
    prm::pg::RequestSharedAreas(kSharedAreas, std::size(kSharedAreas));
}
