// Work that must wait until it is certain that the transaction commits: what shared memory holds does not
// roll back.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Calls action(argument) when the current transaction has committed; never, if it or the subtransaction that
// runs now rolls back or is prepared. The action must not raise errors: it may take LWLocks. May raise errors
// itself: call it through the guard.
void AtCommit(void (*action)(uint64 argument), uint64 argument);

}  // namespace prm::pg
