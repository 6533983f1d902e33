#include "pg/grant_hint.h"

#include "pg/compat.h"

namespace prm::pg {
namespace {

const GrantedFunction *lists[4];
size_t list_count = 0;

ExecutorStart_hook_type next_start = nullptr;
ExecutorRun_hook_type next_run = nullptr;
ProcessUtility_hook_type next_utility = nullptr;

// Whether a message, in any language, contains this name.
bool Names(const char *message, const char *name) {
  auto is_part = [](char c) { return c == '_' || isalnum(static_cast<unsigned char>(c)); };
  const size_t length = strlen(name);
  for (const char *at = message; (at = strstr(at, name)) != nullptr; at += length)
    if ((at == message || !is_part(at[-1])) && !is_part(at[length])) return true;
  return false;
}

const GrantedFunction *FunctionIn(const char *message) {
  for (size_t i = 0; i < list_count; i++)
    for (const GrantedFunction *one = lists[i]; one->name != nullptr; one++)
      if (Names(message, one->name)) return one;
  return nullptr;
}

// The functions of a name that the current role may not execute.
struct Denied {
  bool any = false;
  bool others = false;  // not only ours

  void Look(Oid function, const char *name) {
    const char *its_name = get_func_name(function);
    if (its_name == nullptr || strcmp(its_name, name) != 0) return;
    if (DatumGetBool(DirectFunctionCall3(has_function_privilege_id_id, ObjectIdGetDatum(GetUserId()),
                                         ObjectIdGetDatum(function), CStringGetTextDatum("EXECUTE"))))
      return;
    any = true;
    const char *schema = get_namespace_name(get_func_namespace(function));
    if (schema == nullptr || strcmp(schema, "redis_migrate") != 0) others = true;
  }
};

// Whether the function of that name that `statement`, a PlannedStmt or an expression, was refused is ours. A
// message has a name without its schema, so other schemas' functions are ruled out by their rights. PL/pgSQL
// may have evaluated an expression of its own: then all functions of that name count.
bool IsOurs(const Node *statement, const char *name) {
  constexpr char kFunction[] = "funcid ";
  Denied denied;
  if (statement != nullptr)
    for (const char *at = nodeToString(statement); (at = strstr(at, kFunction)) != nullptr;)
      denied.Look(static_cast<Oid>(strtoul(at += strlen(kFunction), nullptr, 10)), name);
  if (!denied.any) {
    Relation procedures = table_open(ProcedureRelationId, AccessShareLock);
    ScanKeyData key;
    ScanKeyInit(&key, Anum_pg_proc_proname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum(name));
    SysScanDesc scan = systable_beginscan(procedures, ProcedureNameArgsNspIndexId, true, nullptr, 1, &key);
    for (HeapTuple row; HeapTupleIsValid(row = systable_getnext(scan));)
      denied.Look(reinterpret_cast<Form_pg_proc>(GETSTRUCT(row))->oid, name);
    systable_endscan(scan);
    table_close(procedures, AccessShareLock);
  }
  return denied.any && !denied.others;
}

// Rethrows the caught error. Adds a hint if `statement` was refused one of the functions and the error has no
// hint yet. The refusal leaves the transaction in order: catalogs can be read. `context` is where the
// statement allocates.
[[noreturn]] void RaiseAgain(MemoryContext context, const Node *statement) {
  if (geterrcode() != ERRCODE_INSUFFICIENT_PRIVILEGE) PG_RE_THROW();
  MemoryContextSwitchTo(context);
  ErrorData *error = CopyErrorData();
  auto is_denied = [&](const char *message_id) {
    return error->message_id != nullptr && error->hint == nullptr &&
           strcmp(error->message_id, message_id) == 0;
  };
  const bool is_procedure = is_denied("permission denied for procedure %s");
  const GrantedFunction *function =
      is_procedure || is_denied("permission denied for function %s") ? FunctionIn(error->message) : nullptr;
  if (function == nullptr || !IsTransactionState()) PG_RE_THROW();
  FlushErrorState();
  if (IsOurs(statement, function->name))
    error->hint = psprintf("GRANT EXECUTE ON %s %s TO the role that needs it.",
                           is_procedure ? "PROCEDURE" : "FUNCTION", function->signatures);
  ReThrowError(error);
}

void Start(QueryDesc *query, int flags) {
  MemoryContext const context = CurrentMemoryContext;
  PG_TRY();
  {
    if (next_start != nullptr)
      next_start(query, flags);
    else
      standard_ExecutorStart(query, flags);
  }
  PG_CATCH();
  { RaiseAgain(context, reinterpret_cast<const Node *>(query->plannedstmt)); }
  PG_END_TRY();
}

// PL/pgSQL may evaluate an expression without a statement; its rights are checked while the caller runs.
void Run(PRM_EXECUTOR_RUN_PARAMETERS) {
  MemoryContext const context = CurrentMemoryContext;
  PG_TRY();
  {
    if (next_run != nullptr)
      next_run(PRM_EXECUTOR_RUN_ARGUMENTS);
    else
      standard_ExecutorRun(PRM_EXECUTOR_RUN_ARGUMENTS);
  }
  PG_CATCH();
  { RaiseAgain(context, reinterpret_cast<const Node *>(query->plannedstmt)); }
  PG_END_TRY();
}

// CALL checks the right to its procedure itself. DO, CALL and COPY evaluate expressions of PL/pgSQL while no
// statement runs.
void Utility(PlannedStmt *pstmt, const char *query, bool read_only, ProcessUtilityContext where,
             ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest,
             QueryCompletion *completion) {
  MemoryContext const context = CurrentMemoryContext;
  PG_TRY();
  {
    (next_utility != nullptr ? next_utility : standard_ProcessUtility)(pstmt, query, read_only, where, params,
                                                                       environment, dest, completion);
  }
  PG_CATCH();
  {
    const Node *statement = pstmt->utilityStmt;
    RaiseAgain(context,
               IsA(statement, CallStmt)
                   ? reinterpret_cast<const Node *>(reinterpret_cast<const CallStmt *>(statement)->funcexpr)
                   : nullptr);
  }
  PG_END_TRY();
}

}  // namespace

void HintGrants(const GrantedFunction *functions) {
  Assert(list_count < std::size(lists));
  if (list_count == 0) {
    next_start = std::exchange(ExecutorStart_hook, Start);
    next_run = std::exchange(ExecutorRun_hook, Run);
    next_utility = std::exchange(ProcessUtility_hook, Utility);
  }
  lists[list_count++] = functions;
}

}  // namespace prm::pg
