#include "worker/utility_hook.h"

#include "pg/background.h"
#include "pg/entry.h"
#include "pg/wait.h"
#include "worker/databases.h"
#include "worker/launch.h"

namespace prm::worker {
namespace {

constexpr int64 kLeaveTimeoutMs = 10 * 1000;

ProcessUtility_hook_type previous_hook = nullptr;
Oid closing = InvalidOid;

// The name of the database to which a statement needs exclusive access.
const char *DatabaseNeeded(Node *statement) {
  if (auto *drop = reinterpret_cast<DropdbStmt *>(statement); IsA(statement, DropdbStmt)) return drop->dbname;
  if (auto *rename = reinterpret_cast<RenameStmt *>(statement); IsA(statement, RenameStmt))
    return rename->renameType == OBJECT_DATABASE ? rename->subname : nullptr;
  const char *database = nullptr;
  const char *option_name = nullptr;
  List *options = nullptr;
  if (IsA(statement, AlterDatabaseStmt)) {
    auto *alter = reinterpret_cast<AlterDatabaseStmt *>(statement);
    database = alter->dbname;
    option_name = "tablespace";
    options = alter->options;
  } else if (IsA(statement, CreatedbStmt)) {
    option_name = "template";
    options = reinterpret_cast<CreatedbStmt *>(statement)->options;
  }
  ListCell *cell;
  foreach (cell, options) {
    auto *option = lfirst_node(DefElem, cell);
    if (strcmp(option->defname, option_name) != 0) continue;
    return database != nullptr ? database : (option->arg != nullptr ? defGetString(option) : nullptr);
  }
  return nullptr;
}

// A caller whom PostgreSQL will refuse must not end workers.
Oid DatabaseToClose(Node *statement) {
  const char *name = DatabaseNeeded(statement);
  if (name == nullptr || !IsUnderPostmaster || RecoveryInProgress()) return InvalidOid;
  Oid const database = get_database_oid(name, true);
  if (!OidIsValid(database) || database == MyDatabaseId) return InvalidOid;
  return object_ownercheck(DatabaseRelationId, database, GetUserId()) ? database : InvalidOid;
}

bool CommitsPrepared(Node *statement) {
  return IsA(statement, TransactionStmt) &&
         reinterpret_cast<TransactionStmt *>(statement)->kind == TRANS_STMT_COMMIT_PREPARED;
}

bool HasWorkers(Oid database) {
  for (const Slot &slot : Slots())
    if (slot.database == database) return true;
  return false;
}

void SendWorkersAway() {
  Oid const database = closing;
  RequireSlots();
  CloseDatabase(database);
  WakeAtEnd(database);
  // Workers that are not connected yet are found in the next round. A worker that is left makes the statement
  // fail, as any session does.
  int64 const end = pg::MonotonicMs() + kLeaveTimeoutMs;
  while (HasWorkers(database) && pg::MonotonicMs() < end) {
    TerminateAll(database);
    pg::Sleep(10);
  }
}

void OnUtility(PlannedStmt *pstmt, const char *query, bool read_only, ProcessUtilityContext context,
               ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest,
               QueryCompletion *completion) {
  bool const commits_prepared = CommitsPrepared(pstmt->utilityStmt);
  closing = DatabaseToClose(pstmt->utilityStmt);
  if (OidIsValid(closing)) pg::Enter(&SendWorkersAway);
  (previous_hook != nullptr ? previous_hook : standard_ProcessUtility)(pstmt, query, read_only, context,
                                                                       params, environment, dest, completion);
  if (commits_prepared) WakeIfPrepared();
}

}  // namespace

void InstallUtilityHook() {
  previous_hook = ProcessUtility_hook;
  ProcessUtility_hook = OnUtility;
}

}  // namespace prm::worker
