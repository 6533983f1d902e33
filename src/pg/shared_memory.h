// Pieces of the server's main shared memory. They exist only in a server that preloads the library.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// One piece, with LWLocks of its own: a constant-initialised global of the file that uses it.
class SharedArea {
 public:
  // `size` (bytes) and `locks` are called when the settings are known; either may return 0. `initialize` is
  // called once, with the memory zeroed, and again after a crash, when shared memory is created again; it
  // must not raise errors. `at_shutdown`, if any, runs in the postmaster at an orderly shutdown: plain C
  // calls that must not raise errors.
  constexpr SharedArea(const char *name, size_t (*size)(), int (*locks)(), void (*initialize)(void *memory),
                       void (*at_shutdown)() = nullptr)
      : name_(name), size_(size), lock_count_(locks), initialize_(initialize), at_shutdown_(at_shutdown) {}

  // nullptr if the library was not preloaded.
  void *memory() const { return memory_; }
  LWLock *lock(int number) const { return &locks_[number].lock; }

 private:
  friend void RequestSharedAreas(SharedArea *const *areas, size_t count);
  void Request() const;
  void Attach();

  const char *name_;
  size_t (*size_)();
  int (*lock_count_)();
  void (*initialize_)(void *memory);
  void (*at_shutdown_)();
  void *memory_ = nullptr;
  LWLockPadded *locks_ = nullptr;
};

// Requests the pieces, a constant array. _PG_init calls it once, only while libraries are preloaded.
void RequestSharedAreas(SharedArea *const *areas, size_t count);

}  // namespace prm::pg
