// The actual state of the workers, in shared memory. The desired state is in tables (job.h). README.md says
// who may change what.
#pragma once

#include "pg/pg.h"

namespace prm::worker {

enum class Kind : uint8 {
  kLauncher,
  kScheduler,
  kMigration,
  kPart,
  kVerificationPart,
  kLink,
  kApplier,
  kReverse,
  kCutover,
  kSweeper,
  kAttempts
};
constexpr const char *kKindNames[] = {
    "launcher",     "scheduler",    "migration", "migration part", "verification part", "replication link",
    "live applier", "reverse feed", "cutover",   "sweeper",        "attempt writer"};

// Whether the worker reads parts beside the process that leads.
inline bool IsPart(Kind kind) { return kind == Kind::kPart || kind == Kind::kVerificationPart; }

// Whether the worker is one beside the worker that leads a run.
inline bool IsOfRun(Kind kind) {
  return kind == Kind::kPart || kind == Kind::kLink || kind == Kind::kApplier;
}

enum class State : uint8 { kStarting, kWaiting, kRunning, kSleeping, kRetrying, kEnding };
constexpr const char *kStateNames[] = {
    "starting", "waiting for a transaction", "running", "sleeping", "retrying", "ending"};

// A request to a worker; SIGINT makes the worker check for it.
enum class Request : uint8 { kNone, kStop, kRestart };

// The task that a slot is claimed for, unique among the slots in use.
struct Task {
  Kind kind;
  Oid database = InvalidOid;
  Oid owner = InvalidOid;
  int64 job = 0;     // of a migration: redis_migrate.background_run; of a part, a link or an applier:
                     // redis_migrate.run; of a verification part:
                     // redis_migrate.verification; of a reverse feed: redis_migrate.reverse_feed; of a
                     // cutover: redis_migrate.cutover
  int32 number = 0;  // of a part, a link or an applier: its number within the run, or the verification
};
bool operator==(const Task &a, const Task &b);

// Names one claim of a slot. A later claim of the same slot has another generation.
struct Ticket {
  int slot = -1;
  uint32 generation = 0;
};

constexpr int kMessageSize = 256;

// Plain data, written under the area's lock only.
struct Slot {
  bool in_use;
  Kind kind;
  State state;
  Request request;
  uint32 generation;
  Oid database;
  Oid owner;
  int64 job;
  int32 number;
  TransactionId starter;  // if valid, the worker waits for its end
  pid_t pid;              // 0: claimed, and no process yet
  int64 claimed_ms;       // monotonic
  TimestampTz launched_at;
  TimestampTz since;  // of the state
  uint64 wakeups;     // how often its main loop has looked for work
  uint64 runs;        // how many commands it has run
  char sqlstate[6];
  char message[kMessageSize];  // the last error

  Task task() const { return {kind, database, owner, job, number}; }
};

// Whether the server preloaded the library: only then are there launcher and schedulers.
bool IsPreloaded();

// Finds the slots, or creates them if the library was not preloaded. Errors: 53200 when there is no shared
// memory for them.
void RequireSlots();

// Identifies this incarnation of the shared memory: it changes with every server start and every crash
// recovery. `after_crash`: whether the previous one ended in a crash.
int64 Incarnation();
bool AfterCrash();
int WorkerLimit();  // launcher and schedulers do not count
int WorkerShare();  // the share of them for the migrations of one role

// Why a claim was refused: somebody has claimed a slot for the same task, all are in use, or the role's
// migrations have their share.
enum class ClaimRefusal { kDuplicate, kFull, kShareUsed };

// Claims a slot. Errors: none. nullopt: *refusal says why. Parts leave two slots to other work.
std::optional<Ticket> Claim(const Task &task, TransactionId starter, ClaimRefusal *refusal);

// Releases a claim that no process has taken over. False if one has.
bool Unclaim(Ticket ticket);

// For the worker: takes over the claim and releases the slot when the process ends. False if the claim is
// gone. The slot of this process is MySlot() afterwards.
bool Attach(Ticket ticket);
Ticket MyTicket();
bool IsWorker();             // whether this process has a slot
Slot MySlot();               // a copy
void SetState(State state);  // also stamps since
void CountWakeup();          // of this process' main loop
void CountRun();
void SetError(const char *sqlstate, const std::string &message);  // "" clears it
Request MyRequest();

// Copies of all slots in use.
std::vector<Slot> Slots();
std::optional<Slot> FindSlot(const Task &task);
bool IsAlive(Ticket ticket);

// Asks the worker of a task to end, and interrupts its command. nullopt: there is none.
std::optional<Ticket> Ask(const Task &task, Request request);
// Makes the worker of a task look at its work now, if it sleeps.
void Nudge(const Task &task);
// Ends a worker with SIGTERM; it records nothing.
void Terminate(Ticket ticket);
void TerminateAll(Oid database);
// Waits for the end of a worker that was asked to end; terminates it after the timeout, and waits again.
// False if it is still running.
bool End(Ticket ticket, int64 timeout_ms);
// Waits until the claim is released. False after a timeout. Errors: those of a cancelled wait.
bool WaitForEnd(Ticket ticket, int64 timeout_ms);

}  // namespace prm::worker
