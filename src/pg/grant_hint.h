// Adds the GRANT as a hint to "permission denied for function" of functions and procedures that a DBA grants.
// PostgreSQL checks EXECUTE before our code runs, so the hint is added on the way out of the executor, or of
// a utility statement.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

struct GrantedFunction {
  const char *name;
  const char *signatures;  // as GRANT wants them: the name where it is unique, otherwise all with that name
};

// Registers functions and procedures of the schema redis_migrate, an array that ends with a null name.
// _PG_init calls it once for each list.
void HintGrants(const GrantedFunction *functions);

}  // namespace prm::pg
