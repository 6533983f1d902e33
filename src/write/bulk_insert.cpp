#include "write/bulk_insert.h"

#include "mapping/mapping_query.h"
#include "pg/memory.h"
#include "pg/transaction.h"
#include "write/key_order.h"
#include "write/plain_table.h"

namespace prm {

using pg::Call;

namespace {

// The limits of COPY (copyfrom.c).
constexpr int kMostRows = 1000;
constexpr Size kMostBytes = 65535;

constexpr int kFirstColumn = QueryRows::kFirstColumn;

// The functions below run inside pg::Call: plain C.

// The attribute of `rows` that fills each of the relation's, 0 for none. Returns false if a column's value
// comes from more than the row.
bool MapColumns(TupleDesc table, TupleDesc rows, const AttrNumber *filled, AttrNumber *source) {
  for (int i = 0; i < rows->natts - kFirstColumn + 1; ++i)
    source[filled[i] - 1] = static_cast<AttrNumber>(i + kFirstColumn);
  for (int i = 0; i < table->natts; ++i) {
    Form_pg_attribute column = TupleDescAttr(table, i);
    if (column->attisdropped) continue;
    if (column->attgenerated != '\0' || column->attidentity != '\0') return false;
    if (source[i] != 0) {
      Form_pg_attribute given = TupleDescAttr(rows, source[i] - 1);
      if (given->atttypid != column->atttypid || given->atttypmod != column->atttypmod) return false;
    } else if (column->atthasdef || get_typtype(column->atttypid) == TYPTYPE_DOMAIN ||
               get_typdefault(column->atttypid) != nullptr) {
      return false;
    }
  }
  return true;
}

struct Waiting {
  ResultRelInfo *table;
  EState *estate;
  CommandId command;
  TupleTableSlot **slots;
  int made;
  int count;
  Size bytes;
};

void Flush(Waiting *waiting) {
  if (waiting->count == 0) return;
  // heap_multi_insert leaves memory behind.
  MemoryContext const previous = MemoryContextSwitchTo(GetPerTupleMemoryContext(waiting->estate));
  table_multi_insert(waiting->table->ri_RelationDesc, waiting->slots, waiting->count, waiting->command, 0,
                     nullptr);
  MemoryContextSwitchTo(previous);
  for (int i = 0; i < waiting->count; ++i) {
    if (waiting->table->ri_NumIndices > 0)
      list_free(pg::InsertIndexTuples(waiting->table, waiting->slots[i], waiting->estate));
    ExecClearTuple(waiting->slots[i]);
  }
  ResetPerTupleExprContext(waiting->estate);
  waiting->count = 0;
  waiting->bytes = 0;
}

void Add(Waiting *waiting, TupleTableSlot *row, const AttrNumber *source) {
  Relation relation = waiting->table->ri_RelationDesc;
  if (waiting->count == waiting->made) waiting->slots[waiting->made++] = table_slot_create(relation, nullptr);
  TupleTableSlot *slot = waiting->slots[waiting->count++];
  slot_getallattrs(row);
  for (int i = 0; i < RelationGetDescr(relation)->natts; ++i) {
    slot->tts_isnull[i] = source[i] == 0 || row->tts_isnull[source[i] - 1];
    slot->tts_values[i] = source[i] == 0 ? Datum{0} : row->tts_values[source[i] - 1];
  }
  ExecStoreVirtualTuple(slot);
  ExecMaterializeSlot(slot);
  slot->tts_tableOid = RelationGetRelid(relation);
  if (RelationGetDescr(relation)->constr != nullptr) ExecConstraints(waiting->table, slot, waiting->estate);
  bool shared;
  waiting->bytes += ExecFetchSlotMinimalTuple(row, &shared)->t_len;
  if (waiting->count == kMostRows || waiting->bytes >= kMostBytes) Flush(waiting);
}

struct Request {
  Oid relation;
  const AttrNumber *columns;
  int column_count;
  Oid order;
  TupleDesc desc;
  Tuplestorestate *rows;
};

void InsertRows(const Request &request, ResultRelInfo *table, EState *estate, const AttrNumber *source) {
  KeyOrder order;
  bool has_order = false;
  for (int i = 0; i < table->ri_NumIndices && !has_order; ++i) {
    if (RelationGetRelid(table->ri_IndexRelationDescs[i]) != request.order) continue;
    FindKeyOrder(table->ri_IndexRelationDescs[i], source, &order);
    has_order = true;
  }
  Waiting waiting = {table,
                     estate,
                     GetCurrentCommandId(true),
                     static_cast<TupleTableSlot **>(palloc(sizeof(TupleTableSlot *) * kMostRows)),
                     0,
                     0,
                     0};
  OrderedRows rows;
  BeginOrderedRows(request.rows, request.desc, has_order ? &order : nullptr, &rows);
  while (NextOrderedRow(&rows)) Add(&waiting, rows.row, source);
  Flush(&waiting);
  EndOrderedRows(&rows);
  for (int i = 0; i < waiting.made; ++i) ExecDropSingleTupleTableSlot(waiting.slots[i]);
}

bool Insert(const Request &request) {
  Relation relation = table_open(request.relation, RowExclusiveLock);
  auto *source = static_cast<AttrNumber *>(palloc0(sizeof(AttrNumber) * RelationGetDescr(relation)->natts));
  bool plain = IsPlainTable(relation) &&
               MayUseColumns(request.relation, request.columns, request.column_count, ACL_INSERT) &&
               MapColumns(RelationGetDescr(relation), request.desc, request.columns, source);
  if (plain) {
    EState *estate = CreateExecutorState();
    ResultRelInfo *table = makeNode(ResultRelInfo);
    InitResultRelInfo(table, relation, 0, nullptr, 0);
    pg::CheckTarget(table, CMD_INSERT);
    ExecOpenIndices(table, false);
    plain = HasPlainIndexes(table);
    if (plain) InsertRows(request, table, estate, source);
    ExecCloseIndices(table);
    FreeExecutorState(estate);
  }
  table_close(relation, NoLock);
  if (plain) CommandCounterIncrement();
  return plain;
}

}  // namespace

bool BulkInsert(Oid relation, Oid order, const std::vector<AttrNumber> &columns, TupleDesc desc,
                pg::Tuplestore &rows) {
  Request const request = {relation, columns.data(), static_cast<int>(columns.size()),
                           order,    desc,           rows.get()};
  pg::Context context("redis_migrate bulk insert");
  pg::SwitchContext in_context(context.get());
  pg::SnapshotScope snapshot;
  return Call([&] { return Insert(request); });
}

bool BulkInsert(const Target &target, const std::vector<const TargetColumn *> &columns, TupleDesc desc,
                pg::Tuplestore &rows) {
  std::vector<AttrNumber> numbers;
  for (const TargetColumn *column : columns) numbers.push_back(column->number);
  return BulkInsert(target.oid, target.key_index, numbers, desc, rows);
}

}  // namespace prm
