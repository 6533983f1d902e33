#include "write/bulk_update.h"

#include "pg/detoast.h"
#include "pg/meanwhile.h"
#include "pg/memory.h"
#include "write/plain_table.h"

namespace prm {

using pg::Call;

namespace {

constexpr int kFirstColumn = 3;  // of rows: redis_row and redis_entry come first

struct Request {
  Oid relation;
  const AttrNumber *columns;  // that are set
  const AttrNumber *offered;  // the attributes of the rows that they are set to
  int column_count;
  TupleDesc desc;
  Tuplestorestate *rows;
  const LookedUpRow *places;
  const AttrNumber *kept;  // attributes of the relation; nullptr: changes are not kept
  int kept_count;
  TupleDesc kept_desc;
  Tuplestorestate *changes;
};

// The functions below run inside pg::Call: plain C.

bool HasSameTypes(TupleDesc table, const Request &request) {
  for (int i = 0; i < table->natts; ++i)
    if (TupleDescAttr(table, i)->attgenerated != '\0') return false;
  for (int i = 0; i < request.column_count; ++i) {
    Form_pg_attribute column = TupleDescAttr(table, request.columns[i] - 1);
    Form_pg_attribute given = TupleDescAttr(request.desc, request.offered[i] - 1);
    if (column->attisdropped || given->atttypid != column->atttypid || given->atttypmod != column->atttypmod)
      return false;
  }
  return true;
}

struct Changing {
  ResultRelInfo *table;
  EState *estate;
  CommandId command;
  TupleTableSlot *row;
  TupleTableSlot *stored;
  TupleTableSlot *changed;
};

// A larger value was put out of line when it was stored.
constexpr Size kInlineBytes = 32 * 1024;

void Keep(const Request &request, const Changing &changing) {
  TupleTableSlot *changed = changing.changed;
  bool is_large = false;
  for (int i = 0; i < request.kept_count; ++i) {
    int const column = request.kept[i] - 1;
    is_large = is_large || (!changed->tts_isnull[column] &&
                            TupleDescAttr(changed->tts_tupleDescriptor, column)->attlen == -1 &&
                            toast_raw_datum_size(changed->tts_values[column]) > kInlineBytes);
  }
  TupleTableSlot *fetched = nullptr;
  if (is_large) {
    Relation relation = changing.table->ri_RelationDesc;
    ItemPointerData place = changed->tts_tid;
    fetched = table_slot_create(relation, nullptr);
    if (!table_tuple_fetch_row_version(relation, &place, SnapshotSelf, fetched))
      elog(ERROR, "could not read a row that was just changed");
    slot_getallattrs(fetched);
    changed = fetched;
  }
  int const count = request.kept_count;
  auto *values = static_cast<Datum *>(palloc(sizeof(Datum) * static_cast<size_t>(2 * count + 1)));
  auto *nulls = static_cast<bool *>(palloc(sizeof(bool) * static_cast<size_t>(2 * count + 1)));
  for (int i = 0; i < count; ++i) {
    int const column = request.kept[i] - 1;
    values[i] = changing.stored->tts_values[column];
    nulls[i] = changing.stored->tts_isnull[column];
    values[count + 1 + i] = changed->tts_values[column];
    nulls[count + 1 + i] = changed->tts_isnull[column];
  }
  values[count] = BoolGetDatum(true);
  nulls[count] = false;
  tuplestore_putvalues(request.changes, request.kept_desc, values, nulls);
  if (fetched != nullptr) ExecDropSingleTupleTableSlot(fetched);
}

bool Change(const Request &request, const Changing &changing, ItemPointerData place) {
  Relation relation = changing.table->ri_RelationDesc;
  TupleTableSlot *stored = changing.stored;
  TupleTableSlot *changed = changing.changed;
  if (!table_tuple_fetch_row_version(relation, &place, GetActiveSnapshot(), stored)) return false;
  slot_getallattrs(stored);
  ExecClearTuple(changed);
  int const natts = RelationGetDescr(relation)->natts;
  memcpy(changed->tts_values, stored->tts_values, sizeof(Datum) * static_cast<size_t>(natts));
  memcpy(changed->tts_isnull, stored->tts_isnull, sizeof(bool) * static_cast<size_t>(natts));
  for (int i = 0; i < request.column_count; ++i) {
    int const column = request.columns[i] - 1;
    int const offered = request.offered[i] - 1;
    changed->tts_values[column] = changing.row->tts_values[offered];
    changed->tts_isnull[column] = changing.row->tts_isnull[offered];
  }
  ExecStoreVirtualTuple(changed);
  changed->tts_tableOid = RelationGetRelid(relation);
  if (RelationGetDescr(relation)->constr != nullptr)
    ExecConstraints(changing.table, changed, changing.estate);
  pg::IndexEntries entries;
  MemoryContext const previous = MemoryContextSwitchTo(GetPerTupleMemoryContext(changing.estate));
  bool const is_changed =
      pg::UpdateTuple(relation, &place, changed, changing.command, GetActiveSnapshot(), &entries);
  if (is_changed && request.kept != nullptr) Keep(request, changing);
  MemoryContextSwitchTo(previous);
  if (is_changed) pg::UpdateIndexTuples(changing.table, changed, changing.estate, entries);
  ResetPerTupleExprContext(changing.estate);
  return is_changed;
}

bool ChangeRows(const Request &request, ResultRelInfo *table, EState *estate) {
  Relation relation = table->ri_RelationDesc;
  Changing const changing = {table,
                             estate,
                             GetCurrentCommandId(true),
                             MakeSingleTupleTableSlot(request.desc, &TTSOpsMinimalTuple),
                             table_slot_create(relation, nullptr),
                             table_slot_create(relation, nullptr)};
  const LookedUpRow *place = request.places;
  bool all = true;
  tuplestore_rescan(request.rows);
  while (all && tuplestore_gettupleslot(request.rows, true, false, changing.row)) {
    CHECK_FOR_INTERRUPTS();
    pg::Proceed();
    slot_getallattrs(changing.row);
    int32 const number = DatumGetInt32(changing.row->tts_values[0]);
    while (place->number < number) ++place;
    all = Change(request, changing, place->place);
  }
  ExecDropSingleTupleTableSlot(changing.changed);
  ExecDropSingleTupleTableSlot(changing.stored);
  ExecDropSingleTupleTableSlot(changing.row);
  return all;
}

BulkUpdated Update(const Request &request) {
  // Takes the snapshot that a statement would have.
  CommandCounterIncrement();
  PushCopiedSnapshot(GetTransactionSnapshot());
  UpdateActiveSnapshotCommandId();
  Relation relation = table_open(request.relation, RowExclusiveLock);
  BulkUpdated updated = BulkUpdated::kNone;
  if (IsPlainTable(relation) &&
      MayUseColumns(request.relation, request.columns, request.column_count, ACL_UPDATE) &&
      HasSameTypes(RelationGetDescr(relation), request)) {
    EState *estate = CreateExecutorState();
    ResultRelInfo *table = makeNode(ResultRelInfo);
    InitResultRelInfo(table, relation, 0, nullptr, 0);
    pg::CheckTarget(table, CMD_UPDATE);
    ExecOpenIndices(table, false);
    if (HasPlainIndexes(table))
      updated = ChangeRows(request, table, estate) ? BulkUpdated::kAll : BulkUpdated::kSome;
    ExecCloseIndices(table);
    FreeExecutorState(estate);
  }
  table_close(relation, NoLock);
  PopActiveSnapshot();
  CommandCounterIncrement();
  return updated;
}

}  // namespace

BulkUpdated BulkUpdate(const Target &target, const std::vector<const TargetColumn *> &columns, TupleDesc desc,
                       pg::Tuplestore &rows, const std::vector<LookedUpRow> &places,
                       const KeptChanges *kept) {
  std::vector<AttrNumber> set, offered, kept_columns;
  if (kept != nullptr)
    for (const TargetColumn *column : kept->columns) kept_columns.push_back(column->number);
  for (size_t i = 0; i < columns.size(); ++i) {
    bool const is_key = std::any_of(target.keys.begin(), target.keys.end(), [&](const KeyColumn &key) {
      return key.column.number == columns[i]->number;
    });
    if (is_key || columns[i]->identity_always) continue;
    set.push_back(columns[i]->number);
    offered.push_back(static_cast<AttrNumber>(i + kFirstColumn));
  }
  Request const request = {target.oid,
                           set.data(),
                           offered.data(),
                           static_cast<int>(set.size()),
                           desc,
                           rows.get(),
                           places.data(),
                           kept != nullptr ? kept_columns.data() : nullptr,
                           static_cast<int>(kept_columns.size()),
                           kept != nullptr ? kept->desc : nullptr,
                           kept != nullptr ? kept->rows.get() : nullptr};
  pg::Context context("redis_migrate bulk update");
  pg::SwitchContext in_context(context.get());
  return Call([&] { return Update(request); });
}

}  // namespace prm
