// For background workers: transactions and commands of their own, and waits between them.
#pragma once

#include "pg/guard.h"
#include "pg/pg.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm::pg {

// Milliseconds of the monotonic clock, the same in all processes of a server.
int64 MonotonicMs();

// Waits until the latch is set or the time is over, processes interrupts and a reload of the configuration.
// For loops that check again what they wait for: returns early at any signal.
void WaitForLatch(int64 timeout_ms);

// Reads the configuration files again if SIGHUP asked for it. Only for background workers: a session does it
// between commands.
void ReloadIfAsked();

// Aborts the current transaction, if any. Call it after an exception, once the objects of the frames that it
// left are destroyed.
void AbortTransaction();

// Begins a transaction that is READ COMMITTED, whatever the default of the role or the database. C++-free:
// called inside a guard.
inline void StartReadCommitted() {
  StartTransactionCommand();
  XactIsoLevel = XACT_READ_COMMITTED;
}

// Runs `body` in a transaction of its own with a snapshot and SPI; commits, or aborts and rethrows the
// exception.
template <typename Body>
void InTransaction(Body body) {
  Call([] {
    SetCurrentStatementStartTimestamp();
    StartReadCommitted();
  });
  try {
    SnapshotScope snapshot;
    Spi spi;
    body();
  } catch (...) {
    AbortTransaction();
    throw;
  }
  Call([] {
    CommitTransactionCommand();
    pgstat_report_stat(false);
  });
}

// Runs one command as for a client: through a portal, at top level, so that a procedure may commit.
// pg_stat_activity shows it. No transaction may be open before; none is afterwards, also after an error.
void RunCommand(const std::string &sql);

// Within RunCommand, right after a commit: once a second, adds what this process has done to the statistics
// of the server. They would wait for the end of the command, which may be days away, and autovacuum with
// them. Returns whether it has, and the transaction that began with the commit has to end with another one.
bool ReportStatistics();

}  // namespace prm::pg
