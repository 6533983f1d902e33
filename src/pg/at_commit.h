// Work for the commit of a transaction, for changes of shared memory, which does not roll back.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Calls action(argument) after the current transaction has committed, but not if the transaction or the
// current subtransaction rolls back or is prepared. The action must not raise errors; it may take LWLocks.
// May raise errors itself: call it through the guard.
void AtCommit(void (*action)(uint64 argument), uint64 argument);

}  // namespace prm::pg
