// Pieces of the server's main shared memory. They exist in every process of a server that has the library in
// shared_preload_libraries, and in none of any other.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// One piece, with LWLocks of its own. Defined as a constant-initialised global by the file that uses it.
class SharedArea {
 public:
  // `size` (bytes) and `locks` are asked when the settings are known; either may answer 0. `initialize` is
  // called once, with the memory zeroed; it must not raise errors. `at_shutdown`, if any, runs in the
  // postmaster when the server ends in order: plain C calls that must not raise errors. They run again
  // after a crash, when all shared memory is made anew.
  constexpr SharedArea(const char *name, size_t (*size)(), int (*locks)(), void (*initialize)(void *memory),
                       void (*at_shutdown)() = nullptr)
      : name_(name), size_(size), lock_count_(locks), initialize_(initialize), at_shutdown_(at_shutdown) {}

  // nullptr where the library was not preloaded.
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

// Asks for the pieces, a constant array; called once, from _PG_init, and only while libraries are preloaded.
void RequestSharedAreas(SharedArea *const *areas, size_t count);

}  // namespace prm::pg
