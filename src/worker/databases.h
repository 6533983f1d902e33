// The launcher's knowledge of the databases it looks after, so that an idle one needs no process: whether
// something has changed there, and when something is due.
#pragma once

#include "pg/pg.h"

namespace prm::worker {

// When the current transaction commits, whoever launches workers in this database looks again. For what
// defines work. Does nothing in a worker that looks again by itself, and in a server that did not preload the
// library.
void WakeAtCommit();

// As WakeAtCommit, but at once; pg/work_signal.h calls it.
void WakeNow();

// As WakeAtCommit, after COMMIT PREPARED, where a transaction that called WakeAtCommit has been prepared in
// this life of the shared memory: which one it was is not known.
void WakeIfPrepared();

// As WakeAtCommit, for another database, also when the transaction is rolled back.
void WakeAtEnd(Oid database);

// Makes the launcher look at once; what pg::signal_save stands for.
void WakeLauncher();

// For the launcher: makes `listed` the databases that it looks after. Returns how many did not fit.
int ListDatabases(const std::vector<Oid> &listed);
// For the launcher: those that need a scheduler now. Each one counts as a launch that failed until its
// scheduler says LookedAt: the next one waits twice as long. *sleep_ms is lowered to when the next one needs
// one.
std::vector<Oid> DatabasesInNeed(int64 *sleep_ms);
// Whether the launcher looks after a database.
bool IsListed(Oid database);

// For the scheduler: the number of changes so far, asked before it looks at the tables.
uint32 Changes(Oid database);
void LookedAt(Oid database);
// It is about to end, as nothing is to be done before `due` (NULL: ever). False when there were changes since
// `changes`: it has to look again.
bool Park(Oid database, uint32 changes, std::optional<TimestampTz> due);

}  // namespace prm::worker
