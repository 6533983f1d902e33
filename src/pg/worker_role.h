// Whether a background worker can work as a role.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Why no worker can connect as a role, or cannot write afterwards.
struct RoleProblem {
  std::string sqlstate;
  std::string message;  // "role x is not permitted to log in"
  std::string hint;     // the command that fixes it
};

// The problem of a role in the current database according to the catalogs; nullopt: none. Runs
// redis_migrate.worker_role_problem; needs SPI.
std::optional<RoleProblem> FindRoleProblem(Oid role);

// WARNING that `work` ("migration x") will fail in the background, if the role has a problem. Needs SPI.
void WarnOfRoleProblem(Oid role, const std::string &work);

}  // namespace prm::pg
