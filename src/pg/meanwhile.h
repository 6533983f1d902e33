// Work that goes on in passing while rows are stored.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// As long as it exists, Proceed calls `work` with `argument`, at most every 100 microseconds. Of several the
// newest counts; they end in the reverse order. The work takes no time to speak of, calls nothing of
// PostgreSQL, and cannot fail.
class Meanwhile {
 public:
  using Work = void (*)(void *argument) noexcept;
  Meanwhile(Work work, void *argument);
  ~Meanwhile();
  Meanwhile(const Meanwhile &) = delete;
  Meanwhile &operator=(const Meanwhile &) = delete;

 private:
  Work work_before_;
  void *argument_before_;
};

extern uint32 proceed_calls;
void ProceedIfDue() noexcept;

// To be called for each row by what takes long, also within pg::Call: it neither throws nor raises. The clock
// is looked at in every 16th call.
inline void Proceed() noexcept {
  if (++proceed_calls % 16 == 0) ProceedIfDue();
}

}  // namespace prm::pg
