// The launcher's state per database: whether something has changed there, and when something is due. So an
// idle database needs no process.
#pragma once

#include "pg/pg.h"

namespace prm::worker {

// Wakes the process that launches workers in this database when the current transaction commits. For changes
// that define work. Does nothing in a worker that looks again by itself, and if the library was not
// preloaded.
void WakeAtCommit();

// As WakeAtCommit, but at once; pg/work_signal.h calls it.
void WakeNow();

// As WakeAtCommit, after COMMIT PREPARED, if any transaction that called WakeAtCommit has been prepared since
// the shared memory was created: which one is not known.
void WakeIfPrepared();

// As WakeAtCommit, for another database, also when the transaction is rolled back.
void WakeAtEnd(Oid database);

// Wakes the launcher; the implementation of pg::signal_save.
void WakeLauncher();

// For the launcher: sets the databases to schedule. Returns how many did not fit.
int ListDatabases(const std::vector<Oid> &listed);
// For the launcher: the databases that need a scheduler now. Each counts as a failed launch until its
// scheduler calls LookedAt: the wait for the next launch doubles. Lowers *sleep_ms to the time until the next
// database needs one.
std::vector<Oid> DatabasesInNeed(int64 *sleep_ms);
// Whether the launcher schedules a database.
bool IsListed(Oid database);

// For the scheduler: the number of changes so far, asked before it looks at the tables.
uint32 Changes(Oid database);
void LookedAt(Oid database);
// For the scheduler, before it ends because nothing is due before `due` (NULL: ever). False if there were
// changes since `changes`, and it has to look again.
bool Park(Oid database, uint32 changes, std::optional<TimestampTz> due);

}  // namespace prm::worker
