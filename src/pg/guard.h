// The guard around every PostgreSQL call made from a frame that owns C++ objects.
#pragma once

#include "pg/error.h"
#include "pg/pg.h"

namespace prm::pg {

// Copies the pending PostgreSQL error and throws it as PgError, or as std::bad_alloc when there is no memory
// for the copy. Only for Call.
[[noreturn]] void ThrowPending();

// Runs `body`, a closure of plain C calls, and turns a PostgreSQL error into a PgError exception, so that the
// destructors between here and the entry barrier run. The guard must be the deepest frame: nothing inside
// `body` may own resources, throw or return anything but plain data. A caught error may only be rethrown,
// unless the work ran in a subtransaction (pg/transaction.h) that is then rolled back: locks and buffers are
// still held. The pattern follows pgrx (ffi.rs) and the rule stated in pg_ducklake #248; setjmp's second
// argument is 0 as in PG_TRY.
template <typename Body>
auto Call(Body body) -> decltype(body()) {
  using R = decltype(body());
  static_assert(std::is_trivially_destructible_v<Body>, "capture by reference only");
  static_assert(std::is_void_v<R> || std::is_trivially_copyable_v<R>, "return plain data only");
  sigjmp_buf *const saved_stack = PG_exception_stack;
  ErrorContextCallback *const saved_callbacks = error_context_stack;
  MemoryContext const saved_context = CurrentMemoryContext;
  sigjmp_buf here;
  if (sigsetjmp(here, 0) == 0) {
    PG_exception_stack = &here;
    if constexpr (std::is_void_v<R>) {
      body();
      PG_exception_stack = saved_stack;
      error_context_stack = saved_callbacks;
      return;
    } else {
      R result = body();
      PG_exception_stack = saved_stack;
      error_context_stack = saved_callbacks;
      return result;
    }
  }
  PG_exception_stack = saved_stack;
  error_context_stack = saved_callbacks;
  MemoryContextSwitchTo(saved_context);
  ThrowPending();
}

// CHECK_FOR_INTERRUPTS for C++: throws PgError. Costs next to nothing while no interrupt is pending.
inline void CheckInterrupts() {
  if (INTERRUPTS_PENDING_CONDITION()) Call([] { ProcessInterrupts(); });
}

}  // namespace prm::pg
