#include "pg/background.h"

#include "pg/work_signal.h"

namespace prm::pg {

void (*signal_work)() = nullptr;
void (*signal_save)() = nullptr;

namespace {

constexpr int64 kReportEveryMs = 1000;

// Within a command of ours whose procedure is not counted itself: the count would hold a pointer to what a
// report frees. Procedures in C are counted with track_functions = all.
bool may_report = false;

uint32 WaitEventId() {
  static uint32 id = 0;
  if (id == 0) id = WaitEventExtensionNew("RedisMigrateWorker");
  return id;
}

void RunThroughPortal(const char *sql) {
  List *parsed = pg_parse_query(sql);
  RawStmt *statement = linitial_node(RawStmt, parsed);
  PushActiveSnapshot(GetTransactionSnapshot());
  List *plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(statement, sql, nullptr, 0, nullptr), sql,
                                CURSOR_OPT_PARALLEL_OK, nullptr);
  PopActiveSnapshot();
  Portal portal = CreatePortal("", true, true);
  portal->visible = false;
  PortalDefineQuery(portal, nullptr, sql, CreateCommandTag(statement->stmt), plans, nullptr);
  PortalStart(portal, nullptr, 0, InvalidSnapshot);
  PortalRun(portal, FETCH_ALL, true, None_Receiver, None_Receiver, nullptr);
  PortalDrop(portal, false);
}

}  // namespace

int64 MonotonicMs() {
  instr_time now;
  INSTR_TIME_SET_CURRENT(now);
  return static_cast<int64>(INSTR_TIME_GET_MILLISEC(now));
}

void ReloadIfAsked() {
  if (!ConfigReloadPending) return;
  ConfigReloadPending = false;
  Call([] { ProcessConfigFile(PGC_SIGHUP); });
}

void WaitForLatch(int64 timeout_ms) {
  Call([&] {
    CHECK_FOR_INTERRUPTS();
    WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
              static_cast<long>(std::max(timeout_ms, int64{0})), WaitEventId());
    ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
  });
  ReloadIfAsked();
}

void AbortTransaction() {
  Call([] {
    AbortOutOfAnyTransaction();
    pgstat_report_activity(STATE_IDLE, nullptr);
  });
}

void RunCommand(const std::string &sql) {
  // The command's trees must outlive the transactions that it ends.
  MemoryContext const outer = CurrentMemoryContext;
  MemoryContext const context = Call([] {
    return AllocSetContextCreate(TopMemoryContext, "redis_migrate command", ALLOCSET_DEFAULT_SIZES);
  });
  try {
    Call([&] {
      SetCurrentStatementStartTimestamp();
      debug_query_string = MemoryContextStrdup(context, sql.c_str());
      pgstat_report_activity(STATE_RUNNING, debug_query_string);
      StartReadCommitted();
      MemoryContextSwitchTo(context);
      may_report = pgstat_track_functions < TRACK_FUNC_ALL;
      RunThroughPortal(debug_query_string);
      may_report = false;
      CommitTransactionCommand();
    });
  } catch (...) {
    may_report = false;
    AbortTransaction();
    debug_query_string = nullptr;
    MemoryContextSwitchTo(outer);
    MemoryContextDelete(context);
    throw;
  }
  debug_query_string = nullptr;
  MemoryContextSwitchTo(outer);
  MemoryContextDelete(context);
  Call([] {
    pgstat_report_stat(false);
    pgstat_report_activity(STATE_IDLE, nullptr);
  });
}

bool ReportStatistics() {
#ifdef USE_ASSERT_CHECKING
  // The server asserts that no transaction is open. One is, but it has done nothing yet.
  return false;
#else
  static int64 reported_ms = 0;
  if (!may_report) return false;
  int64 const now_ms = MonotonicMs();
  if (now_ms - reported_ms < kReportEveryMs) return false;
  reported_ms = now_ms;
  Call([] { pgstat_report_stat(false); });
  return true;
#endif
}

}  // namespace prm::pg
