#include "pg/entry.h"
#include "pg/settings.h"
#include "pg/shared_memory.h"
#include "worker/preload.h"

extern "C" {
PG_MODULE_MAGIC_EXT(.name = "pg_redis_migrate", .version = PRM_VERSION);
}

namespace {

prm::pg::SharedArea *const shared_areas[] = {prm::worker::shared_area};

void Init() {
  prm::pg::settings::Define();
  if (!process_shared_preload_libraries_in_progress) return;
  prm::pg::RequestSharedAreas(shared_areas, lengthof(shared_areas));
  prm::worker::Preload();
}

}  // namespace

void _PG_init(void) { prm::pg::Enter(&Init); }
