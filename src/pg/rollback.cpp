#include "pg/rollback.h"

#include "pg/spi.h"

namespace prm::pg {

void RollBackAfter(const Problem &problem) {
  Spi::RollBack();
  if (!OidIsValid(Call([] { return get_extension_oid("pg_redis_migrate", true); })))
    throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                  "extension pg_redis_migrate was dropped meanwhile",
                  "Rows that were stored are kept. The last message was: " + problem.message + ".");
}

}  // namespace prm::pg
