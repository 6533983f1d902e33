// Looks after the fences of users of Redis while their families belong to PostgreSQL: a fail-over, or a
// restart of Redis, may give the right to write back.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// Called often by live sync, outside of a transaction; looks every few seconds at each master. Takes @write
// again from a user whose rules are those from before the fence, or whose master is another one now; of a
// user who has other rules, or cannot be fenced, fenced_user.trouble says so. A WARNING tells either.
// Commits. Masters that cannot be asked are looked at later, and a WARNING tells it. Errors: those of SQL.
void LookAfterFences(const Migration &migration);

}  // namespace prm
