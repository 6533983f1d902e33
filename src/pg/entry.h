// The barrier around every function that PostgreSQL calls: no C++ exception passes it, and no PostgreSQL
// error is raised while a C++ object is alive.
#pragma once

#include "pg/error.h"
#include "pg/pg.h"

namespace prm::pg {

// Runs `body` and raises what it threw as a PostgreSQL error, after every C++ object is gone.
// Errors: PgError as it was raised, Failure with its own SQLSTATE, std::bad_alloc as 53200, any other
// exception as XX000.
Datum Enter(Datum (*body)(FunctionCallInfo), FunctionCallInfo fcinfo) noexcept;
void Enter(void (*body)()) noexcept;

// Memory that lives as long as the SQL call, and keeps errors until the barrier raises them again.
MemoryContext EntryContext();

}  // namespace prm::pg

// Defines the SQL-callable C function prm_<name>; a body in C++ follows.
#define PRM_FUNCTION(name)                                                              \
  extern "C" {                                                                          \
  PGDLLEXPORT Datum prm_##name(PG_FUNCTION_ARGS);                                       \
  PG_FUNCTION_INFO_V1(prm_##name);                                                      \
  }                                                                                     \
  static Datum name##_body(FunctionCallInfo fcinfo);                                    \
  Datum prm_##name(PG_FUNCTION_ARGS) { return ::prm::pg::Enter(&name##_body, fcinfo); } \
  static Datum name##_body([[maybe_unused]] FunctionCallInfo fcinfo)
