#include "pg/entry.h"
#include "pg/settings.h"

extern "C" {
PG_MODULE_MAGIC_EXT(.name = "pg_redis_migrate", .version = PRM_VERSION);
}

void _PG_init(void) { prm::pg::Enter(&prm::pg::settings::Define); }
