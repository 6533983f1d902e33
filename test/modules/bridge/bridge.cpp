// SQL functions that fail in every way in which C++ code inside the server can fail. test/t/010_bridge.pl
// calls them.
#include <sys/resource.h>

#include <fstream>
#include <new>
#include <stdexcept>
#include <string>

#include "pg/entry.h"
#include "pg/memory.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "pg/wait.h"

extern "C" {
PG_MODULE_MAGIC;
}

namespace {

int alive = 0;

// Counts its instances; large, so that a skipped destructor shows in the size of the process as well.
class Counted {
 public:
  Counted() : payload_(10000, 'x') { ++alive; }
  ~Counted() { --alive; }
  Counted(const Counted &) = delete;
  Counted &operator=(const Counted &) = delete;

 private:
  std::string payload_;
};

std::string Text(FunctionCallInfo fcinfo, int n) {
  return PG_ARGISNULL(n) ? std::string() : std::string(prm::pg::DatumBytes(PG_GETARG_DATUM(n)));
}

int SqlState(const std::string &text) { return MAKE_SQLSTATE(text[0], text[1], text[2], text[3], text[4]); }

// Executes SQL below `depth` frames, each of which owns an object.
void ExecuteBelow(int depth, const std::string &sql) {
  Counted counted;
  if (depth > 0) return ExecuteBelow(depth - 1, sql);
  prm::pg::Spi spi;
  auto const rows = prm::pg::Spi::Execute("SELECT 1");
  prm::pg::Spi::Execute(sql);
}

}  // namespace

// bridge_raise(kind, sqlstate, message, detail, hint): kind is failure, postgres, runtime_error, bad_alloc or
// int.
PRM_FUNCTION(bridge_raise) {
  using namespace prm::pg;
  Counted counted;
  std::string kind = Text(fcinfo, 0), message = Text(fcinfo, 2), detail = Text(fcinfo, 3),
              hint = Text(fcinfo, 4);
  if (kind == "failure") throw Failure(SqlState(Text(fcinfo, 1)), message, detail, hint);
  if (kind == "runtime_error") throw std::runtime_error(message);
  if (kind == "bad_alloc") throw std::bad_alloc();
  if (kind == "int") throw 42;
  int sqlstate = SqlState(Text(fcinfo, 1));
  Call([&] {
    ereport(ERROR, (errcode(sqlstate), errmsg("%s", message.c_str()), errdetail("%s", detail.c_str()),
                    errhint("%s", hint.c_str())));
  });
  PG_RETURN_VOID();
}

// bridge_raise_without_memory(): raises an error of which no copy can be made, because the process may not
// grow once the error has its text. C: called by errfinish.
static void StopGrowing(void *) {
  std::ifstream statm("/proc/self/statm");
  unsigned long pages = 0;
  statm >> pages;
  struct rlimit limit;
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = (pages + 1000) * 4096;
  setrlimit(RLIMIT_AS, &limit);
}

PRM_FUNCTION(bridge_raise_without_memory) {
  Counted counted;
  struct Unlimited {
    ~Unlimited() {
      struct rlimit limit;
      getrlimit(RLIMIT_AS, &limit);
      limit.rlim_cur = limit.rlim_max;
      setrlimit(RLIMIT_AS, &limit);
    }
  } unlimited;
  std::string const message(64 * 1024 * 1024, 'm');
  prm::pg::Call([&] {
    ErrorContextCallback callback = {error_context_stack, StopGrowing, nullptr};
    error_context_stack = &callback;
    ereport(ERROR, (errmsg_internal("%s", message.c_str())));
  });
  PG_RETURN_VOID();
}

// bridge_roll_back(sql, times): a procedure that runs a statement so many times, with rows of another one in
// its hands, rolls back after its error, and goes on; the table went_on has the SQLSTATE.
PRM_FUNCTION(bridge_roll_back) {
  using namespace prm::pg;
  std::string sqlstate = "00000";
  Spi spi(true);
  for (int i = 0; i < PG_GETARG_INT32(1); ++i) {
    try {
      auto const rows = Spi::Execute("SELECT pg_catalog.repeat('x', 10000)");
      Spi::Execute(Text(fcinfo, 0));
    } catch (...) {
      sqlstate = CurrentProblem().SqlState();
      Spi::RollBack();
    }
  }
  Spi::Execute("CREATE TABLE went_on AS SELECT '" + sqlstate + "'::text AS after");
  Spi::Commit();
  PG_RETURN_VOID();
}

// bridge_execute(sql, depth): runs a statement under frames that own objects; its error goes on to the
// caller.
PRM_FUNCTION(bridge_execute) {
  ExecuteBelow(PG_GETARG_INT32(1), Text(fcinfo, 0));
  PG_RETURN_VOID();
}

// bridge_try(sql, depth) → text: the same in a subtransaction; returns the SQLSTATE of the error, '00000'
// without one.
PRM_FUNCTION(bridge_try) {
  using namespace prm::pg;
  std::string sqlstate = "00000";
  try {
    InSubtransaction([&] { ExecuteBelow(PG_GETARG_INT32(1), Text(fcinfo, 0)); });
  } catch (const PgError &error) {
    sqlstate = SqlStateText(error.sqlstate());
  }
  return TextDatum(sqlstate);
}

// bridge_alive() → integer: objects whose destructor has not run.
PRM_FUNCTION(bridge_alive) { PG_RETURN_INT32(alive); }

// bridge_is_clean() → boolean: no exception is being handled or thrown.
PRM_FUNCTION(bridge_is_clean) {
  PG_RETURN_BOOL(std::current_exception() == nullptr && std::uncaught_exceptions() == 0);
}

// bridge_sleep(timeout_ms, times): sleeps so many times.
PRM_FUNCTION(bridge_sleep) {
  for (int i = 0; i < PG_GETARG_INT32(1); ++i) prm::pg::Sleep(PG_GETARG_INT32(0));
  PG_RETURN_VOID();
}
