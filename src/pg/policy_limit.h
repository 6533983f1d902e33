// How many policies that take shared memory a role may own.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Checks that a role may own one more policy in this database, and keeps others from creating policies for
// the role until the end of the transaction. `kind` is "lockout" or "rate limit", `table` the table of
// policies, which has a column owner. Runs as the extension's owner; needs an SPI connection. Errors: 53400
// when the role owns pg_redis_migrate.max_policies_per_role of them.
void CheckPolicyLimit(const char *kind, const char *table, Oid role);

}  // namespace prm::pg
