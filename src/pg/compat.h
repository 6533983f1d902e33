// All differences between PostgreSQL 15 and 20devel that matter here. The rest of the source is written for
// the newest version; no other file tests PG_VERSION_NUM.
#pragma once

#if PG_VERSION_NUM < 150000
#error "pg_redis_migrate needs PostgreSQL 15 or newer"
#endif

extern "C" {
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
#if PG_VERSION_NUM >= 170000
#include "storage/dsm_registry.h"
#endif
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#include "parser/parse_node.h"
#else
// From 16 on the core declares it, and PGDLLEXPORT makes a symbol visible.
PGDLLEXPORT void _PG_init(void);
#endif
}

#if PG_VERSION_NUM < 160000
inline bool object_ownercheck([[maybe_unused]] Oid classid, Oid objectid, Oid roleid) {
  Assert(classid == DatabaseRelationId);
  return pg_database_ownercheck(objectid, roleid);
}
inline AclResult object_aclcheck([[maybe_unused]] Oid classid, Oid objectid, Oid roleid, AclMode mode) {
  Assert(classid == ForeignServerRelationId);
  return pg_foreign_server_aclcheck(objectid, roleid, mode);
}
#endif

#if PG_VERSION_NUM < 160000
// Soft errors came in 16; nullptr asks for hard ones.
inline List *stringToQualifiedNameList(const char *name, Node *) { return stringToQualifiedNameList(name); }

// Tree walkers take a typed callback from 16 on.
using tree_walker_callback = bool (*)(Node *, void *);
inline bool (*UntypedWalker(tree_walker_callback walker))() {
  return reinterpret_cast<bool (*)()>(reinterpret_cast<void (*)(void)>(walker));
}
inline bool expression_tree_walker(Node *node, tree_walker_callback walker, void *context) {
  return expression_tree_walker(node, UntypedWalker(walker), context);
}
inline bool raw_expression_tree_walker(Node *node, tree_walker_callback walker, void *context) {
  return raw_expression_tree_walker(node, UntypedWalker(walker), context);
}
inline bool query_tree_walker(Query *query, tree_walker_callback walker, void *context, int flags) {
  return query_tree_walker(query, UntypedWalker(walker), context, flags);
}
#endif

#if PG_VERSION_NUM < 160000
struct config_generic;
extern "C" config_generic **get_guc_variables(void);
inline config_generic **get_guc_variables(int *count) {
  *count = GetNumConfigOptions();
  return get_guc_variables();
}
#endif

#if PG_VERSION_NUM < 170000
// The first argument is a resource owner from 17 on; before, the set is only memory.
inline WaitEventSet *CreateWaitEventSet(ResourceOwner, int nevents) {
  return CreateWaitEventSet(CurrentMemoryContext, nevents);
}
inline uint32 WaitEventExtensionNew(const char *) { return PG_WAIT_EXTENSION; }
// A background worker of a role without LOGIN is possible from 17 on.
#define BGWORKER_BYPASS_ROLELOGINCHECK 0
#endif

#if PG_VERSION_NUM < 180000
inline void ExecutorRun(QueryDesc *query, ScanDirection direction, uint64 count) {
  ExecutorRun(query, direction, count, true);
}
#define PG_MODULE_MAGIC_EXT(...) PG_MODULE_MAGIC
inline bool PortalRun(Portal portal, long count, bool top_level, DestReceiver *dest,
                      DestReceiver *alternative, QueryCompletion *completion) {
  return PortalRun(portal, count, top_level, true, dest, alternative, completion);
}
#endif

#if PG_VERSION_NUM < 190000
// From 19 on a descriptor made by hand must be finalized before a slot uses it.
inline void TupleDescFinalize(TupleDesc) {}
struct ExplainState;
inline PlannedStmt *pg_plan_query(Query *query, const char *source, int options, ParamListInfo params,
                                  ExplainState *) {
  return pg_plan_query(query, source, options, params);
}
// A jsonb under construction. The result is there at its end; from 19 on it is among more fields.
struct JsonbInState {
  JsonbValue *result;
  JsonbParseState *parseState;
};
inline void pushJsonbValue(JsonbInState *state, JsonbIteratorToken token, JsonbValue *value) {
  state->result = pushJsonbValue(&state->parseState, token, value);
}
#endif

namespace prm::pg {

// The parameter of invalidation callbacks that names the cache.
#if PG_VERSION_NUM >= 190000
using CatalogCache = SysCacheIdentifier;
#else
using CatalogCache = int;
#endif

// A tranche for locks in shared memory. Before 19 each process names it again (NameLockTranche).
inline int NewLockTranche([[maybe_unused]] const char *name) {
#if PG_VERSION_NUM >= 190000
  return LWLockNewTrancheId(name);
#else
  return LWLockNewTrancheId();
#endif
}
inline void NameLockTranche([[maybe_unused]] int tranche, [[maybe_unused]] const char *name) {
#if PG_VERSION_NUM < 190000
  LWLockRegisterTranche(tranche, name);
#endif
}

// The context that holds the tuples of a new tuplestore; nullptr before 18, where it has no context of its
// own.
inline MemoryContext TuplestoreContext() {
#if PG_VERSION_NUM >= 180000
  return CurrentMemoryContext->firstchild;
#else
  return nullptr;
#endif
}

// From 18 on a tuplestore's context keeps the first block that becomes empty, however large it is: a value of
// 100 MB that went to a file would stay in memory as long as the store. This gives the context a small block
// to keep. Neither chunk fits the context's own block; the first one's block becomes the spare, the second
// one's the current block.
inline void SpareTuplestoreBlock(MemoryContext context) {
  if (context == nullptr) return;
  void *first = MemoryContextAlloc(context, ALLOCSET_DEFAULT_INITSIZE);
  void *second = MemoryContextAlloc(context, ALLOCSET_DEFAULT_INITSIZE);
  pfree(first);
  pfree(second);
}

// The local transaction id of this session; its field moved in 17.
inline LocalTransactionId CurrentLocalTransaction() {
#if PG_VERSION_NUM >= 170000
  return MyProc->vxid.lxid;
#else
  return MyProc->lxid;
#endif
}

// Calls a type's input function on data that may be invalid. Returns false with the error (palloc'd) for an
// invalid value. Before 16 there are no soft errors: the call needs a subtransaction of its own
// (pg/soft_input.cpp).
#if PG_VERSION_NUM >= 160000
constexpr bool kHasSoftErrors = true;
inline bool InputSoftly(FmgrInfo *input, char *text, Oid ioparam, int32 typmod, Datum *value,
                        ErrorData **error) {
  ErrorSaveContext escontext = {};
  escontext.type = T_ErrorSaveContext;
  escontext.details_wanted = true;
  if (InputFunctionCallSafe(input, text, ioparam, typmod, reinterpret_cast<Node *>(&escontext), value))
    return true;
  *error = escontext.error_data;
  return false;
}
#else
constexpr bool kHasSoftErrors = false;
inline bool InputSoftly(FmgrInfo *, char *, Oid, int32, Datum *, ErrorData **) { return false; }
#endif

// Shared memory that is created when a process first asks for it, where the library is not preloaded. Before
// 17 it comes out of the spare room of the main segment: error 53200 when there is none.
inline void *LateSharedMemory(const char *name, size_t size, void (*initialize)(void *)) {
  bool found = false;
#if PG_VERSION_NUM >= 170000
#if PG_VERSION_NUM >= 190000
  return GetNamedDSMSegment(
      name, size, [](void *memory, void *callback) { reinterpret_cast<void (*)(void *)>(callback)(memory); },
      &found, reinterpret_cast<void *>(initialize));
#else
  return GetNamedDSMSegment(name, size, initialize, &found);
#endif
#else
  LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
  void *memory = ShmemInitStruct(name, size, &found);
  if (!found) {
    memset(memory, 0, size);
    initialize(memory);
  }
  LWLockRelease(AddinShmemInitLock);
  return memory;
#endif
}

// The permission entries of a query built by hand: an empty list from 16 on, nothing before.
inline void TakePermissions(Query *query, ParseState *pstate) {
#if PG_VERSION_NUM >= 160000
  query->rteperminfos = pstate->p_rteperminfos;
#else
  (void)query;
  (void)pstate;
#endif
}

// Whether an UPDATE has RETURNING, a list before 18 and a clause since.
inline bool HasReturning(const UpdateStmt *update) {
#if PG_VERSION_NUM >= 180000
  return update->returningClause != nullptr;
#else
  return update->returningList != NIL;
#endif
}

// Adds the index entries of a row that has just been stored; duplicates are errors.
inline List *InsertIndexTuples(ResultRelInfo *table, TupleTableSlot *slot, EState *estate) {
#if PG_VERSION_NUM >= 190000
  return ExecInsertIndexTuples(table, estate, 0, slot, NIL, nullptr);
#elif PG_VERSION_NUM >= 160000
  return ExecInsertIndexTuples(table, slot, estate, false, false, nullptr, NIL, false);
#else
  return ExecInsertIndexTuples(table, slot, estate, false, false, nullptr, NIL);
#endif
}

// Which indexes need entries for the new version of a row.
enum class IndexEntries { kNone, kAll, kSummarizing };

// Replaces the version of a row at `place` by that of the slot, which gets its place. Waits for who is
// changing the row. False: it is not the newest version, or not any more.
inline bool UpdateTuple(Relation table, ItemPointer place, TupleTableSlot *slot, CommandId command,
                        Snapshot snapshot, IndexEntries *entries) {
  TM_FailureData failure;
  LockTupleMode mode;
#if PG_VERSION_NUM >= 160000
  TU_UpdateIndexes indexes;
#else
  bool indexes;
#endif
  TM_Result const result = table_tuple_update(table, place, slot, command,
#if PG_VERSION_NUM >= 190000
                                              0,
#endif
                                              snapshot, InvalidSnapshot, true, &failure, &mode, &indexes);
#if PG_VERSION_NUM >= 160000
  *entries = indexes == TU_None  ? IndexEntries::kNone
             : indexes == TU_All ? IndexEntries::kAll
                                 : IndexEntries::kSummarizing;
#else
  *entries = indexes ? IndexEntries::kAll : IndexEntries::kNone;
#endif
  return result == TM_Ok;
}

// Adds them; duplicates are errors.
inline void UpdateIndexTuples(ResultRelInfo *table, TupleTableSlot *slot, EState *estate,
                              IndexEntries entries) {
  if (entries == IndexEntries::kNone || table->ri_NumIndices == 0) return;
#if PG_VERSION_NUM >= 190000
  uint32 const only = entries == IndexEntries::kSummarizing ? EIIT_ONLY_SUMMARIZING : 0;
  list_free(ExecInsertIndexTuples(table, estate, EIIT_IS_UPDATE | only, slot, NIL, nullptr));
#elif PG_VERSION_NUM >= 160000
  list_free(ExecInsertIndexTuples(table, slot, estate, true, false, nullptr, NIL,
                                  entries == IndexEntries::kSummarizing));
#else
  list_free(ExecInsertIndexTuples(table, slot, estate, true, false, nullptr, NIL));
#endif
}

inline IndexScanDesc BeginIndexScan(Relation table, Relation index, Snapshot snapshot, int keys) {
#if PG_VERSION_NUM >= 190000
  return index_beginscan(table, index, snapshot, nullptr, keys, 0, 0);
#elif PG_VERSION_NUM >= 180000
  return index_beginscan(table, index, snapshot, nullptr, keys, 0);
#else
  return index_beginscan(table, index, snapshot, keys, 0);
#endif
}

// Errors where the relation does not take such a command.
inline void CheckTarget(ResultRelInfo *table, CmdType command) {
#if PG_VERSION_NUM >= 190000
  CheckValidResultRel(table, command, ONCONFLICT_NONE, NIL, nullptr);
#elif PG_VERSION_NUM >= 180000
  CheckValidResultRel(table, command, ONCONFLICT_NONE, NIL);
#elif PG_VERSION_NUM >= 170000
  CheckValidResultRel(table, command, NIL);
#else
  CheckValidResultRel(table, command);
#endif
}

// The expression behind a column of a range table entry that only renames others: joins and, from 18 on,
// GROUP BY. Otherwise nullptr.
inline Node *BehindColumn(const RangeTblEntry *rte, int column) {
  if (rte->rtekind == RTE_JOIN) return static_cast<Node *>(list_nth(rte->joinaliasvars, column - 1));
#if PG_VERSION_NUM >= 180000
  if (rte->rtekind == RTE_GROUP) return static_cast<Node *>(list_nth(rte->groupexprs, column - 1));
#endif
  return nullptr;
}

// Whether an expression is JSON_VALUE or one of its kind, which came in 17.
inline bool IsJsonExpression([[maybe_unused]] const Node *node) {
#if PG_VERSION_NUM >= 170000
  return IsA(node, JsonExpr);
#else
  return false;
#endif
}

}  // namespace prm::pg

// The parameters of ExecutorRun, and how to pass them on. Up to 17 there is execute_once.
#if PG_VERSION_NUM < 180000
#define PRM_EXECUTOR_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once
#define PRM_EXECUTOR_RUN_ARGUMENTS query, direction, count, execute_once
#else
#define PRM_EXECUTOR_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define PRM_EXECUTOR_RUN_ARGUMENTS query, direction, count
#endif
