#include "worker/slots.h"

#include "pg/background.h"
#include "pg/wait.h"
#include "worker/area.h"

namespace prm::worker {
namespace {

// A claim that no process has taken over expires after this time: forking takes milliseconds.
constexpr int64 kClaimTimeoutMs = 30 * 1000;

constexpr int64 kTerminateTimeoutMs = 10 * 1000;

// A run of a large cluster must not keep sweeps, attempts and other runs waiting for hours.
constexpr int kLeftByParts = 2;

// Nor may the migrations of one role delay those of others.
constexpr int kLeftToOtherRoles = 2;

Ticket my_ticket;

// The slot of a ticket, if the claim still stands. Under the lock.
Slot *SlotOf(Ticket ticket) {
  if (ticket.slot < 0 || ticket.slot >= area->slot_count) return nullptr;
  Slot *slot = &area->slots[ticket.slot];
  return slot->in_use && slot->generation == ticket.generation ? slot : nullptr;
}

bool IsDeadClaim(const Slot &slot, int64 now) {
  return slot.in_use && slot.pid == 0 && now - slot.claimed_ms > kClaimTimeoutMs;
}

bool CountsAgainstLimit(Kind kind) { return kind != Kind::kLauncher && kind != Kind::kScheduler; }

// Role OIDs are valid in all databases. A role has one sweeper in each.
bool CountsAgainstShare(Kind kind) {
  return kind == Kind::kMigration || IsOfRun(kind) || kind == Kind::kVerificationPart ||
         kind == Kind::kReverse;
}

// Called at process exit, after locks are released. Must not raise errors.
void Detach(int, Datum) {
  if (area == nullptr || my_ticket.slot < 0) return;
  LWLockAcquire(&area->lock, LW_EXCLUSIVE);
  if (Slot *slot = SlotOf(my_ticket)) {
    slot->in_use = false;
    slot->pid = 0;
    if (slot->kind != Kind::kLauncher) WakeManagersLocked(slot->database, slot->kind != Kind::kScheduler);
  }
  LWLockRelease(&area->lock);
  my_ticket = Ticket();
}

template <typename Change>
void ChangeMine(Change change) {
  Locked lock(LW_EXCLUSIVE);
  if (Slot *slot = SlotOf(my_ticket)) change(slot);
}

}  // namespace

// A job stays the same whoever owns it by now, or nobody.
bool operator==(const Task &a, const Task &b) {
  return a.kind == b.kind && a.database == b.database && (a.owner == b.owner || a.job != 0) &&
         a.job == b.job && a.number == b.number;
}

int WorkerShare() { return std::max(area->worker_limit - kLeftToOtherRoles, (area->worker_limit + 1) / 2); }

std::optional<Ticket> Claim(const Task &task, TransactionId starter, ClaimRefusal *refusal) {
  TimestampTz const now = GetCurrentTimestamp();
  int64 const now_ms = pg::MonotonicMs();
  Locked lock(LW_EXCLUSIVE);
  int used = 0, of_role = 0, free = -1;
  for (int i = 0; i < area->slot_count; ++i) {
    Slot *slot = &area->slots[i];
    if (IsDeadClaim(*slot, now_ms)) slot->in_use = false;
    if (!slot->in_use) {
      if (free < 0) free = i;
      continue;
    }
    if (slot->task() == task) {
      *refusal = ClaimRefusal::kDuplicate;
      return std::nullopt;
    }
    if (CountsAgainstLimit(slot->kind)) ++used;
    if (CountsAgainstShare(slot->kind) && slot->owner == task.owner) ++of_role;
  }
  int const limit = area->worker_limit - (IsPart(task.kind) ? kLeftByParts : 0);
  if (free < 0 || (CountsAgainstLimit(task.kind) && used >= limit)) {
    *refusal = ClaimRefusal::kFull;
    return std::nullopt;
  }
  if (CountsAgainstShare(task.kind) && of_role >= WorkerShare()) {
    *refusal = ClaimRefusal::kShareUsed;
    return std::nullopt;
  }
  Slot *slot = &area->slots[free];
  uint32 const generation = slot->generation + 1;
  memset(slot, 0, sizeof *slot);
  slot->in_use = true;
  slot->kind = task.kind;
  slot->state = State::kStarting;
  slot->generation = generation;
  slot->database = task.database;
  slot->owner = task.owner;
  slot->job = task.job;
  slot->number = task.number;
  slot->starter = starter;
  slot->claimed_ms = now_ms;
  slot->launched_at = slot->since = now;
  return Ticket{free, generation};
}

bool Unclaim(Ticket ticket) {
  Locked lock(LW_EXCLUSIVE);
  Slot *slot = SlotOf(ticket);
  if (slot == nullptr || slot->pid != 0) return false;
  slot->in_use = false;
  return true;
}

bool Attach(Ticket ticket) {
  {
    Locked lock(LW_EXCLUSIVE);
    Slot *slot = SlotOf(ticket);
    if (slot == nullptr || slot->pid != 0) return false;
    slot->pid = MyProcPid;
  }
  my_ticket = ticket;
  pg::Call([] { before_shmem_exit(Detach, 0); });
  return true;
}

Ticket MyTicket() { return my_ticket; }
bool IsWorker() { return my_ticket.slot >= 0; }

Slot MySlot() {
  Locked lock(LW_SHARED);
  return area->slots[my_ticket.slot];
}

void SetState(State state) {
  TimestampTz const now = GetCurrentTimestamp();
  ChangeMine([&](Slot *slot) {
    if (slot->state != state) slot->since = now;
    slot->state = state;
  });
}

void CountWakeup() {
  ChangeMine([](Slot *slot) { ++slot->wakeups; });
}

void CountRun() {
  ChangeMine([](Slot *slot) { ++slot->runs; });
}

void SetError(const char *sqlstate, const std::string &message) {
  int const length = pg_mbcliplen(message.data(), static_cast<int>(message.size()), kMessageSize - 1);
  ChangeMine([&](Slot *slot) {
    strlcpy(slot->sqlstate, sqlstate, sizeof slot->sqlstate);
    memcpy(slot->message, message.data(), length);
    slot->message[length] = '\0';
  });
}

Request MyRequest() { return MySlot().request; }

std::vector<Slot> Slots() {
  std::vector<Slot> slots;
  slots.reserve(area->slot_count);
  Locked lock(LW_SHARED);
  for (int i = 0; i < area->slot_count; ++i)
    if (area->slots[i].in_use) slots.push_back(area->slots[i]);
  return slots;
}

std::optional<Slot> FindSlot(const Task &task) {
  Locked lock(LW_SHARED);
  for (int i = 0; i < area->slot_count; ++i)
    if (area->slots[i].in_use && area->slots[i].task() == task) return area->slots[i];
  return std::nullopt;
}

bool IsAlive(Ticket ticket) {
  int64 const now_ms = pg::MonotonicMs();
  Locked lock(LW_SHARED);
  Slot *slot = SlotOf(ticket);
  return slot != nullptr && !IsDeadClaim(*slot, now_ms);
}

std::optional<Ticket> Ask(const Task &task, Request request) {
  Locked lock(LW_EXCLUSIVE);
  for (int i = 0; i < area->slot_count; ++i) {
    Slot *slot = &area->slots[i];
    if (!slot->in_use || !(slot->task() == task)) continue;
    slot->request = request;
    // Under the lock the process cannot have released the slot, so the pid is its own.
    if (slot->pid != 0) kill(slot->pid, SIGINT);
    return Ticket{i, slot->generation};
  }
  return std::nullopt;
}

void Nudge(const Task &task) {
  Locked lock(LW_SHARED);
  for (int i = 0; i < area->slot_count; ++i) {
    const Slot &slot = area->slots[i];
    if (slot.in_use && slot.pid != 0 && slot.task() == task) kill(slot.pid, SIGUSR1);
  }
}

void Terminate(Ticket ticket) {
  Locked lock(LW_EXCLUSIVE);
  Slot *slot = SlotOf(ticket);
  if (slot != nullptr && slot->pid != 0) kill(slot->pid, SIGTERM);
}

void TerminateAll(Oid database) {
  Locked lock(LW_EXCLUSIVE);
  for (int i = 0; i < area->slot_count; ++i) {
    Slot *slot = &area->slots[i];
    if (slot->in_use && slot->database == database && slot->pid != 0) kill(slot->pid, SIGTERM);
  }
}

bool End(Ticket ticket, int64 timeout_ms) {
  if (WaitForEnd(ticket, timeout_ms)) return true;
  Terminate(ticket);
  return WaitForEnd(ticket, kTerminateTimeoutMs);
}

bool WaitForEnd(Ticket ticket, int64 timeout_ms) {
  int64 const end = pg::MonotonicMs() + timeout_ms;
  long pause = 2;
  while (IsAlive(ticket)) {
    if (pg::MonotonicMs() >= end) return false;
    pg::Sleep(pause);
    pause = std::min(pause * 2, 100L);
  }
  return true;
}

}  // namespace prm::worker
