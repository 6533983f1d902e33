#include "pg/commit_signal.h"

#include "pg/at_commit.h"
#include "pg/background.h"
#include "pg/wait.h"

extern "C" {
#include "storage/condition_variable.h"
}

namespace prm::pg {
namespace {

constexpr long kLookMs = 250;
constexpr long kLookWithoutSignalsMs = 20;
// Subjects share them: some look in vain then.
constexpr uint64 kSignals = 64;

void Initialize(void *memory) {
  for (uint64 i = 0; i < kSignals; ++i) ConditionVariableInit(static_cast<ConditionVariable *>(memory) + i);
}

uint64 SignalOf(int64 subject) { return (static_cast<uint64>(subject) + MyDatabaseId) % kSignals; }

ConditionVariable *VariableOf(uint64 signal) {
  return static_cast<ConditionVariable *>(commit_signal_area.memory()) + signal;
}

uint32 WaitEventId() {
  static uint32 id = 0;
  if (id == 0) id = WaitEventExtensionNew("RedisMigrateCommit");
  return id;
}

}  // namespace

SharedArea commit_signal_area(
    "pg_redis_migrate commit signals", [] { return kSignals * sizeof(ConditionVariable); }, [] { return 0; },
    Initialize);

void SignalAtCommit(int64 subject) {
  if (commit_signal_area.memory() == nullptr) return;
  Call([&] {
    AtCommit([](uint64 signal) { ConditionVariableBroadcast(VariableOf(signal)); }, SignalOf(subject));
  });
}

CommitSignal::CommitSignal(int64 subject) : signal_(SignalOf(subject)) {}

CommitSignal::~CommitSignal() { ConditionVariableCancelSleep(); }

void CommitSignal::Listen() {
  if (commit_signal_area.memory() != nullptr)
    Call([&] { ConditionVariablePrepareToSleep(VariableOf(signal_)); });
}

void CommitSignal::Wait() {
  if (commit_signal_area.memory() == nullptr) {
    Sleep(kLookWithoutSignalsMs);
    return;
  }
  Call([&] {
    InvalidateCatalogSnapshotConditionally();  // it would hold back vacuum
    (void)ConditionVariableTimedSleep(VariableOf(signal_), kLookMs, WaitEventId());
    ConditionVariableCancelSleep();
  });
  if (MyBgworkerEntry != nullptr) ReloadIfAsked();
}

}  // namespace prm::pg
