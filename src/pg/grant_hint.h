// "permission denied for function" of functions that a DBA grants, with the GRANT as a hint. PostgreSQL
// checks EXECUTE before any code of ours runs, so the hint is added to its error on the way out of the
// executor.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

struct GrantedFunction {
  const char *name;
  const char *signatures;  // as GRANT wants them: the name where it is unique, otherwise all with that name
};

// Gives the hint for these functions of the schema redis_migrate, an array that ends with a null name. Called
// by _PG_init, once for each list.
void HintGrants(const GrantedFunction *functions);

}  // namespace prm::pg
