#include "expiry/partitions.h"

#include "pg/identity.h"

namespace prm::expiry {

using pg::Spi;

bool BoundsHaveExpired(const Statements &statements, const Cutoff &cutoff) {
  pg::LocalSettings settings;
  settings.Set("constraint_exclusion", "on");
  // Row security that was switched on a moment ago: an error rather than a proof that it has falsified.
  settings.Set("row_security", "off");
  auto plan = Spi::Execute("EXPLAIN (COSTS off) " + statements.Unexpired(), {cutoff.param()});
  for (uint64 i = 0; i < plan.size(); ++i)
    if (plan[i].Text(0) == "  One-Time Filter: false") return true;
  return false;
}

void DropPartition(const std::string &name) { Spi::Execute("DROP TABLE " + name); }

}  // namespace prm::expiry
