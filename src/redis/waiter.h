// How the client waits. The server side also waits on its latch and turns an interrupt into an exception;
// unit tests use poll(2).
#pragma once

#include <cstddef>

#include "core/interrupts.h"

namespace prm::redis {

enum WaitEvent : unsigned { kWaitRead = 1, kWaitWrite = 2 };

struct WaitSocket {
  int fd;
  unsigned events;  // WaitEvent bits wanted
  unsigned ready;   // out: WaitEvent bits that are ready
};

// Also checks for interrupts between waits.
class Waiter : public Interrupts {
 public:
  // Waits until a socket is ready or timeout_ms have passed (-1: no limit) and fills `ready` of each. Returns
  // the number of ready sockets; 0 means a timeout. count may be 0: then it only sleeps. May throw when the
  // session is interrupted: callers keep their state in objects with destructors.
  virtual int Wait(WaitSocket* sockets, size_t count, long timeout_ms) = 0;
};

}  // namespace prm::redis
