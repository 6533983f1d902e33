#include "store/bulk_insert.h"

#include "pg/memory.h"
#include "pg/transaction.h"

namespace prm {

using pg::Call;

namespace {

// As COPY has them (copyfrom.c).
constexpr int kMostRows = 1000;
constexpr Size kMostBytes = 65535;

constexpr int kFirstColumn = 3;  // of rows: redis_row and redis_entry come first

// What follows runs inside pg::Call: plain C.

// The attribute of `rows` that fills each of the relation's, 0 for none. Returns false where a column's value
// is more than what the row says.
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

bool MayInsert(Oid relation, const AttrNumber *columns, int count) {
  // Extensions that audit or label see privileges being used through this hook.
  if (ExecutorCheckPerms_hook != nullptr || XactReadOnly) return false;
  if (pg_class_aclcheck(relation, GetUserId(), ACL_INSERT) == ACLCHECK_OK) return true;
  for (int i = 0; i < count; ++i)
    if (pg_attribute_aclcheck(relation, columns[i], GetUserId(), ACL_INSERT) != ACLCHECK_OK) return false;
  return true;
}

// Whether a row is stored by what the heap and its indexes do, and by constraints that look at nothing else.
bool IsPlain(Relation relation) {
  Form_pg_class form = relation->rd_rel;
  if (form->relkind != RELKIND_RELATION || form->relam != HEAP_TABLE_AM_OID || form->relispartition ||
      form->relhassubclass || form->relrowsecurity || IsSystemRelation(relation) ||
      relation->trigdesc != nullptr || relation->rd_rules != nullptr)
    return false;
  TupleConstr *constraints = relation->rd_att->constr;
  for (int i = 0; constraints != nullptr && i < constraints->num_check; ++i)
    if (contain_volatile_functions(static_cast<Node *>(stringToNode(constraints->check[i].ccbin))))
      return false;
  return true;
}

bool HasPlainIndexes(ResultRelInfo *table) {
  for (int i = 0; i < table->ri_NumIndices; ++i) {
    Form_pg_index form = table->ri_IndexRelationDescs[i]->rd_index;
    IndexInfo *info = table->ri_IndexRelationInfo[i];
    if (!form->indimmediate || form->indisexclusion || info->ii_Expressions != NIL ||
        info->ii_Predicate != NIL)
      return false;
  }
  return true;
}

// The order of the unique index on the key columns, for rows.
struct Order {
  int count;
  AttrNumber attributes[INDEX_MAX_KEYS];
  Oid operators[INDEX_MAX_KEYS];
  Oid collations[INDEX_MAX_KEYS];
  bool nulls_first[INDEX_MAX_KEYS];
  SortSupportData support[INDEX_MAX_KEYS];
};

bool OrderOf(Relation index, const AttrNumber *source, const AttrNumber *keys, int key_count, Order *order) {
  Form_pg_index form = index->rd_index;
  if (index->rd_rel->relam != BTREE_AM_OID || !form->indisunique || form->indnkeyatts != key_count)
    return false;
  order->count = key_count;
  for (int i = 0; i < key_count; ++i) {
    AttrNumber const column = form->indkey.values[i];
    bool found = false;
    for (int k = 0; k < key_count; ++k) found = found || keys[k] == column;
    if (!found) return false;
    bool const descends = (index->rd_indoption[i] & INDOPTION_DESC) != 0;
    Oid const type = index->rd_opcintype[i];
    order->attributes[i] = source[column - 1];
    order->operators[i] = get_opfamily_member(index->rd_opfamily[i], type, type,
                                              descends ? BTGreaterStrategyNumber : BTLessStrategyNumber);
    order->collations[i] = index->rd_indcollation[i];
    order->nulls_first[i] = (index->rd_indoption[i] & INDOPTION_NULLS_FIRST) != 0;
    SortSupport support = &order->support[i];
    *support = {};
    support->ssup_cxt = CurrentMemoryContext;
    support->ssup_collation = order->collations[i];
    support->ssup_nulls_first = order->nulls_first[i];
    support->ssup_attno = order->attributes[i];
    PrepareSortSupportFromOrderingOp(order->operators[i], support);
  }
  return true;
}

int CompareRows(TupleTableSlot *a, TupleTableSlot *b, Order *order) {
  for (int i = 0; i < order->count; ++i) {
    bool a_null, b_null;
    Datum const a_value = slot_getattr(a, order->attributes[i], &a_null);
    Datum const b_value = slot_getattr(b, order->attributes[i], &b_null);
    int const result = ApplySortComparator(a_value, a_null, b_value, b_null, &order->support[i]);
    if (result != 0) return result;
  }
  return 0;
}

// Keys come in the order of their names, so that rows mostly are in order. More than work_mem is left as it
// is.
bool NeedsSort(Tuplestorestate *rows, TupleDesc desc, Order *order) {
  TupleTableSlot *slots[2] = {MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple),
                              MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple)};
  Size bytes = 0;
  bool unsorted = false;
  tuplestore_rescan(rows);
  for (int i = 0; tuplestore_gettupleslot(rows, true, false, slots[i % 2]); ++i) {
    bool shared;
    bytes += ExecFetchSlotMinimalTuple(slots[i % 2], &shared)->t_len;
    unsorted = unsorted || (i > 0 && CompareRows(slots[(i - 1) % 2], slots[i % 2], order) > 0);
  }
  ExecDropSingleTupleTableSlot(slots[0]);
  ExecDropSingleTupleTableSlot(slots[1]);
  return unsorted && bytes <= static_cast<Size>(work_mem) * 1024;
}

Tuplesortstate *Sort(Tuplestorestate *rows, TupleDesc desc, Order *order) {
  Tuplesortstate *sort =
      tuplesort_begin_heap(desc, order->count, order->attributes, order->operators, order->collations,
                           order->nulls_first, work_mem, nullptr, TUPLESORT_NONE);
  TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
  tuplestore_rescan(rows);
  while (tuplestore_gettupleslot(rows, true, false, slot)) tuplesort_puttupleslot(sort, slot);
  ExecDropSingleTupleTableSlot(slot);
  tuplesort_performsort(sort);
  return sort;
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
  const AttrNumber *keys;
  int key_count;
  TupleDesc desc;
  Tuplestorestate *rows;
};

void InsertRows(const Request &request, ResultRelInfo *table, EState *estate, const AttrNumber *source) {
  Order order;
  bool sorts = false;
  for (int i = 0; i < table->ri_NumIndices; ++i) {
    if (!OrderOf(table->ri_IndexRelationDescs[i], source, request.keys, request.key_count, &order)) continue;
    sorts = NeedsSort(request.rows, request.desc, &order);
    break;
  }
  Waiting waiting = {table,
                     estate,
                     GetCurrentCommandId(true),
                     static_cast<TupleTableSlot **>(palloc(sizeof(TupleTableSlot *) * kMostRows)),
                     0,
                     0,
                     0};
  TupleTableSlot *row = MakeSingleTupleTableSlot(request.desc, &TTSOpsMinimalTuple);
  if (sorts) {
    Tuplesortstate *sort = Sort(request.rows, request.desc, &order);
    while (tuplesort_gettupleslot(sort, true, false, row, nullptr)) Add(&waiting, row, source);
    Flush(&waiting);
    ExecClearTuple(row);
    tuplesort_end(sort);
  } else {
    tuplestore_rescan(request.rows);
    while (tuplestore_gettupleslot(request.rows, true, false, row)) Add(&waiting, row, source);
    Flush(&waiting);
  }
  ExecDropSingleTupleTableSlot(row);
  for (int i = 0; i < waiting.made; ++i) ExecDropSingleTupleTableSlot(waiting.slots[i]);
}

bool Insert(const Request &request) {
  Relation relation = table_open(request.relation, RowExclusiveLock);
  auto *source = static_cast<AttrNumber *>(palloc0(sizeof(AttrNumber) * RelationGetDescr(relation)->natts));
  bool plain = IsPlain(relation) && MayInsert(request.relation, request.columns, request.column_count) &&
               MapColumns(RelationGetDescr(relation), request.desc, request.columns, source);
  if (plain) {
    EState *estate = CreateExecutorState();
    ResultRelInfo *table = makeNode(ResultRelInfo);
    InitResultRelInfo(table, relation, 0, nullptr, 0);
    pg::CheckInsertTarget(table);
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

bool BulkInsert(const Target &target, const std::vector<const TargetColumn *> &columns, TupleDesc desc,
                pg::Tuplestore &rows) {
  std::vector<AttrNumber> numbers, keys;
  for (const TargetColumn *column : columns) numbers.push_back(column->number);
  for (const KeyColumn &key : target.keys) keys.push_back(key.column.number);
  Request const request = {target.oid,
                           numbers.data(),
                           static_cast<int>(numbers.size()),
                           keys.data(),
                           static_cast<int>(keys.size()),
                           desc,
                           rows.get()};
  pg::Context context("redis_migrate bulk insert");
  pg::SwitchContext in_context(context.get());
  pg::SnapshotScope snapshot;
  return Call([&] { return Insert(request); });
}

}  // namespace prm
