// Wakes a process that waits for what others commit.
#pragma once

#include "pg/shared_memory.h"

namespace prm::pg {

extern SharedArea commit_signal_area;

// At the commit of the current transaction, unless it or the current subtransaction rolls back or is
// prepared: who waits for this subject, a number, looks at once. Nothing happens in a server that did not
// preload the library. Errors: 53200.
void SignalAtCommit(int64 subject);

// The side that waits for a subject: Listen, look, and Wait if there was nothing.
class CommitSignal {
 public:
  explicit CommitSignal(int64 subject);
  ~CommitSignal();
  CommitSignal(const CommitSignal &) = delete;
  CommitSignal &operator=(const CommitSignal &) = delete;

  void Listen();
  // Until there was a signal since Listen, or for a quarter of a second, as prepared transactions give none,
  // or for 20 ms if the library was not preloaded; it may also return at once. No transaction is under way.
  // Processes interrupts.
  void Wait();

 private:
  uint64 const signal_;
};

}  // namespace prm::pg
