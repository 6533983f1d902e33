#include "pg/worker_role.h"

#include "pg/arguments.h"
#include "pg/spi.h"

namespace prm::pg {

std::optional<RoleProblem> FindRoleProblem(Oid role) {
  auto rows = Spi::Execute(
      "SELECT sqlstate, message, hint FROM redis_migrate.worker_role_problem($1) WHERE sqlstate IS NOT NULL",
      {SqlParam::OidOf(role)});
  if (rows.size() == 0) return std::nullopt;
  return RoleProblem{rows[0].Text(0), rows[0].Text(1), rows[0].OptionalText(2).value_or("")};
}

void WarnOfRoleProblem(Oid role, const std::string &work) {
  if (std::optional<RoleProblem> problem = FindRoleProblem(role))
    Report(WARNING, work + " cannot be run by a background worker: " + problem->message,
           "Workers connect as the owner.", problem->hint);
}

}  // namespace prm::pg
