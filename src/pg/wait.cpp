#include "pg/wait.h"

#include "pg/background.h"
#include "pg/wait_limit.h"

namespace prm::pg {
namespace {

uint32 WaitEventId() {
  static uint32 id = 0;
  if (id == 0) id = WaitEventExtensionNew("RedisMigrateNetwork");
  return id;
}

uint32 ToLatchEvents(unsigned events) {
  return ((events & redis::kWaitRead) ? WL_SOCKET_READABLE : 0) |
         ((events & redis::kWaitWrite) ? WL_SOCKET_WRITEABLE : 0);
}

// Waits once; returns false after a timeout, true when a socket is ready or the latch was set.
bool WaitOnce(redis::WaitSocket *sockets, size_t count, long timeout_ms) {
  constexpr int kMaxEvents = 34;  // c-ares uses up to 16 sockets
  WaitEvent events[kMaxEvents];
  int wanted = static_cast<int>(std::min(count, static_cast<size_t>(kMaxEvents - 2)));
  WaitEventSet *set = CreateWaitEventSet(static_cast<ResourceOwner>(nullptr), wanted + 2);
  AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
  AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
  for (int i = 0; i < wanted; ++i)
    AddWaitEventToSet(set, ToLatchEvents(sockets[i].events), sockets[i].fd, nullptr, &sockets[i]);
  int happened = WaitEventSetWait(set, timeout_ms, events, kMaxEvents, WaitEventId());
  FreeWaitEventSet(set);
  for (int i = 0; i < happened; ++i) {
    if (events[i].events & WL_LATCH_SET) ResetLatch(MyLatch);
    auto *socket = static_cast<redis::WaitSocket *>(events[i].user_data);
    if (socket == nullptr) continue;
    if (events[i].events & WL_SOCKET_READABLE) socket->ready |= redis::kWaitRead;
    if (events[i].events & WL_SOCKET_WRITEABLE) socket->ready |= redis::kWaitWrite;
  }
  return happened > 0;
}

// Returns 0 after a timeout.
int WaitFor(redis::WaitSocket *sockets, size_t count, long timeout_ms) {
  return Call([&] {
    TimestampTz const start = GetCurrentTimestamp();
    for (;;) {
      for (size_t i = 0; i < count; ++i) sockets[i].ready = 0;
      CHECK_FOR_INTERRUPTS();
      if (MyBgworkerEntry != nullptr && ConfigReloadPending) {
        // A session reloads the configuration between commands; a worker's command may take days.
        ConfigReloadPending = false;
        ProcessConfigFile(PGC_SIGHUP);
      }
      // A catalog snapshot left by a cache miss would hold back vacuum for the whole wait.
      InvalidateCatalogSnapshotConditionally();
      long remaining = -1;
      if (timeout_ms >= 0)
        remaining = std::max(0L, timeout_ms - TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()));
      bool happened = WaitOnce(sockets, count, remaining);
      int ready = 0;
      for (size_t i = 0; i < count; ++i) ready += sockets[i].ready != 0;
      if (ready > 0) return ready;
      CHECK_FOR_INTERRUPTS();
      if (!happened && timeout_ms >= 0) return 0;
    }
  });
}

const WaitLimit *limit = nullptr;

}  // namespace

WaitLimit::WaitLimit(int64 until_ms, Failure failure)
    : until_ms_(until_ms), failure_(std::move(failure)), outer_(limit) {
  limit = this;
}

WaitLimit::~WaitLimit() { limit = outer_; }

int64 WaitLimit::RestMs() const { return until_ms_ - MonotonicMs(); }

int LatchWaiter::Wait(redis::WaitSocket *sockets, size_t count, long timeout_ms) {
  int64 const rest_ms = limit == nullptr ? PG_INT64_MAX : limit->RestMs();
  if (rest_ms <= 0) throw Failure(limit->failure());
  bool const is_limited = limit != nullptr && (timeout_ms < 0 || timeout_ms > rest_ms);
  int const ready = WaitFor(sockets, count, is_limited ? static_cast<long>(rest_ms) : timeout_ms);
  if (ready == 0 && is_limited) throw Failure(limit->failure());
  return ready;
}

ExternalDescriptor::ExternalDescriptor() {
  if (!Call([] { return AcquireExternalFD(); }))
    throw Failure(ERRCODE_INSUFFICIENT_RESOURCES, "could not open a connection to Redis",
                  "There are too many open files on the local server.",
                  "Raise max_files_per_process and the server's limit of open files.");
}

void Sleep(long timeout_ms) { LatchWaiter().Wait(nullptr, 0, timeout_ms); }

}  // namespace prm::pg
