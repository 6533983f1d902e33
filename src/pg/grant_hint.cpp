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

bool MayExecute(HeapTuple function) {
  auto *form = reinterpret_cast<Form_pg_proc>(GETSTRUCT(function));
  bool is_default;
  const Datum granted = SysCacheGetAttr(PROCNAMEARGSNSP, function, Anum_pg_proc_proacl, &is_default);
  const Acl *acl = is_default ? acldefault(OBJECT_FUNCTION, form->proowner) : DatumGetAclP(granted);
  return aclmask(acl, GetUserId(), form->proowner, ACL_EXECUTE, ACLMASK_ANY) != 0;
}

// Whether the function of that name that the current role was refused is ours. A message has a name without
// its schema, so it is if all of that name that the role may not execute are.
bool IsOurs(const char *name) {
  bool is_ours = false, is_others = false;
  CatCList *functions = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
  for (int i = 0; i < functions->n_members; i++) {
    const HeapTuple function = &functions->members[i]->tuple;
    if (MayExecute(function)) continue;
    const char *schema =
        get_namespace_name(reinterpret_cast<Form_pg_proc>(GETSTRUCT(function))->pronamespace);
    (schema != nullptr && strcmp(schema, "redis_migrate") == 0 ? is_ours : is_others) = true;
  }
  ReleaseCatCacheList(functions);
  return is_ours && !is_others;
}

// Rethrows the caught error. Adds a hint if one of the functions was refused and the error has no hint yet.
// The refusal leaves the transaction in order: catalogs can be read. `context` is where the statement
// allocates.
[[noreturn]] void RaiseAgain(MemoryContext context) {
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
  if (IsOurs(function->name))
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
  { RaiseAgain(context); }
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
  { RaiseAgain(context); }
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
  { RaiseAgain(context); }
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
