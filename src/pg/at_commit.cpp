#include "pg/at_commit.h"

namespace prm::pg {
namespace {

// Allocated in the transaction's memory; the latest comes first.
struct Pending {
  Pending *next;
  int level;  // of the subtransaction
  void (*action)(uint64);
  uint64 argument;
};
Pending *pending = nullptr;

void AtTransactionEnd(XactEvent event, void *) {
  switch (event) {
    case XACT_EVENT_COMMIT:
      for (const Pending *one = pending; one != nullptr; one = one->next) one->action(one->argument);
      pending = nullptr;
      break;
    case XACT_EVENT_ABORT:
    case XACT_EVENT_PREPARE:
      pending = nullptr;
      break;
    default:
      break;
  }
}

void AtSubtransactionEnd(SubXactEvent event, SubTransactionId, SubTransactionId, void *) {
  const int level = GetCurrentTransactionNestLevel();
  if (event == SUBXACT_EVENT_ABORT_SUB)
    while (pending != nullptr && pending->level >= level) pending = pending->next;
  if (event == SUBXACT_EVENT_COMMIT_SUB)
    for (Pending *one = pending; one != nullptr && one->level >= level; one = one->next)
      one->level = level - 1;
}

}  // namespace

void AtCommit(void (*action)(uint64), uint64 argument) {
  static bool registered = false;
  if (!registered) {
    RegisterXactCallback(AtTransactionEnd, nullptr);
    RegisterSubXactCallback(AtSubtransactionEnd, nullptr);
    registered = true;
  }
  auto *one = static_cast<Pending *>(MemoryContextAlloc(TopTransactionContext, sizeof(Pending)));
  *one = {pending, GetCurrentTransactionNestLevel(), action, argument};
  pending = one;
}

}  // namespace prm::pg
