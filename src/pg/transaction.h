// Snapshots and subtransactions as scopes.
#pragma once

#include "pg/guard.h"
#include "pg/pg.h"
#include "pg/scope.h"

namespace prm::pg {

// More subtransactions that are kept in one transaction make snapshots slower for the whole server
// (PGPROC_MAX_CACHED_SUBXIDS).
constexpr int kMostSubtransactions = 64;

// SET CONSTRAINTS ALL IMMEDIATE.
inline void CheckConstraintsAtOnce() {
  Call([] {
    ConstraintsSetStmt *statement = makeNode(ConstraintsSetStmt);
    AfterTriggerSetState(statement);
    pfree(statement);
  });
}

// Whether the WAL up to there is on the disk.
inline bool IsFlushed(XLogRecPtr end) {
  return end <= Call([] { return GetFlushRecPtr(nullptr); });
}

// Pushes a fresh snapshot for a scope. After an error the (sub)transaction's abort pops it.
class SnapshotScope : Scope {
 public:
  SnapshotScope() {
    Call([] { PushActiveSnapshot(GetTransactionSnapshot()); });
  }
  ~SnapshotScope() {
    if (!unwinds()) PopActiveSnapshot();
  }
};

// As SnapshotScope, but with everything committed so far, even in a transaction with an older snapshot.
class LatestSnapshotScope : Scope {
 public:
  LatestSnapshotScope() {
    Call([] { PushActiveSnapshot(GetLatestSnapshot()); });
  }
  ~LatestSnapshotScope() {
    if (!unwinds()) PopActiveSnapshot();
  }
};

// Runs `body` inside a subtransaction. If it throws, the subtransaction is rolled back and the exception
// rethrown. Only after this may a caller swallow a PgError.
template <typename Body>
void InSubtransaction(Body body) {
  MemoryContext const context = CurrentMemoryContext;
  ResourceOwner const owner = CurrentResourceOwner;
  Call([&] {
    BeginInternalSubTransaction(nullptr);
    MemoryContextSwitchTo(context);
  });
  try {
    body();
  } catch (...) {
    Call([&] {
      RollbackAndReleaseCurrentSubTransaction();
      MemoryContextSwitchTo(context);
      CurrentResourceOwner = owner;
    });
    throw;
  }
  Call([&] {
    ReleaseCurrentSubTransaction();
    MemoryContextSwitchTo(context);
    CurrentResourceOwner = owner;
  });
}

// Runs `body` inside a subtransaction that is always rolled back.
template <typename Body>
void InRolledBackSubtransaction(Body body) {
  struct Done {};
  try {
    InSubtransaction([&] {
      body();
      throw Done{};
    });
  } catch (const Done &) {
  }
}

}  // namespace prm::pg
