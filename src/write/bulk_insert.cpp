#include "write/bulk_insert.h"

#include "mapping/mapping_query.h"
#include "pg/meanwhile.h"
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

struct LateEntry {
  Datum value;
  ItemPointerData place;
  bool null;
};

// An index whose entries are kept until all rows are stored and then inserted in their order, so that each of
// its pages is needed once.
struct LateIndex {
  Relation index;
  IndexInfo *info;
  KeyOrder order;
  LateEntry *entries;
};

struct Waiting {
  ResultRelInfo *table;
  EState *estate;
  CommandId command;
  TupleDesc desc;  // of the slots: that of the table would count each of them
  bool has_same_columns;
  TupleTableSlot **slots;
  int made;
  int count;
  Size bytes;
  LateIndex *late;
  int late_count;
  int64 stored;
};

// Entries of one value that takes no memory of its own, in a B-tree that refuses none.
bool MayBeLate(Relation index) {
  Form_pg_index form = index->rd_index;
  return index->rd_rel->relam == BTREE_AM_OID && !form->indisunique && form->indnatts == 1 &&
         form->indisready && TupleDescAttr(RelationGetDescr(index), 0)->attbyval;
}

// Takes indexes from those that the executor fills.
void TakeLateIndexes(Waiting *waiting, const AttrNumber *source, int64 rows) {
  ResultRelInfo *table = waiting->table;
  waiting->late =
      static_cast<LateIndex *>(palloc0(sizeof(LateIndex) * static_cast<Size>(table->ri_NumIndices)));
  int kept = 0;
  for (int i = 0; i < table->ri_NumIndices; ++i) {
    Relation index = table->ri_IndexRelationDescs[i];
    IndexInfo *info = table->ri_IndexRelationInfo[i];
    if (MayBeLate(index)) {
      LateIndex *late = &waiting->late[waiting->late_count++];
      late->index = index;
      late->info = info;
      FindKeyOrder(index, source, &late->order);
      late->entries = static_cast<LateEntry *>(
          MemoryContextAllocHuge(CurrentMemoryContext, sizeof(LateEntry) * static_cast<Size>(rows)));
    } else {
      table->ri_IndexRelationDescs[kept] = index;
      table->ri_IndexRelationInfo[kept++] = info;
    }
  }
  table->ri_NumIndices = kept;
}

int CompareEntries(const void *a, const void *b, void *support) {
  const auto *first = static_cast<const LateEntry *>(a);
  const auto *second = static_cast<const LateEntry *>(b);
  int const result = ApplySortComparator(first->value, first->null, second->value, second->null,
                                         static_cast<SortSupport>(support));
  return result != 0 ? result
                     : ItemPointerCompare(const_cast<ItemPointer>(&first->place),
                                          const_cast<ItemPointer>(&second->place));
}

void InsertLateEntries(Waiting *waiting) {
  for (int i = 0; i < waiting->late_count; ++i) {
    LateIndex *late = &waiting->late[i];
    qsort_arg(late->entries, static_cast<size_t>(waiting->stored), sizeof(LateEntry), CompareEntries,
              &late->order.support[0]);
    MemoryContext const previous = MemoryContextSwitchTo(GetPerTupleMemoryContext(waiting->estate));
    for (int64 n = 0; n < waiting->stored; ++n) {
      LateEntry *entry = &late->entries[n];
      index_insert(late->index, &entry->value, &entry->null, &entry->place, waiting->table->ri_RelationDesc,
                   UNIQUE_CHECK_NO, false, late->info);
      pg::Proceed();
      if (n % kMostRows == 0) ResetPerTupleExprContext(waiting->estate);
    }
    MemoryContextSwitchTo(previous);
    // ExecCloseIndices closes it.
    waiting->table->ri_IndexRelationDescs[waiting->table->ri_NumIndices] = late->index;
    waiting->table->ri_IndexRelationInfo[waiting->table->ri_NumIndices++] = late->info;
  }
}

void Flush(Waiting *waiting) {
  if (waiting->count == 0) return;
  // heap_multi_insert leaves memory behind.
  MemoryContext const previous = MemoryContextSwitchTo(GetPerTupleMemoryContext(waiting->estate));
  table_multi_insert(waiting->table->ri_RelationDesc, waiting->slots, waiting->count, waiting->command, 0,
                     nullptr);
  MemoryContextSwitchTo(previous);
  for (int i = 0; i < waiting->count; ++i) {
    for (int n = 0; n < waiting->late_count; ++n) {
      LateEntry *entry = &waiting->late[n].entries[waiting->stored];
      entry->value =
          slot_getattr(waiting->slots[i], waiting->late[n].info->ii_IndexAttrNumbers[0], &entry->null);
      entry->place = waiting->slots[i]->tts_tid;
    }
    ++waiting->stored;
    pg::Proceed();
    if (waiting->table->ri_NumIndices > 0)
      list_free(pg::InsertIndexTuples(waiting->table, waiting->slots[i], waiting->estate));
    ExecClearTuple(waiting->slots[i]);
  }
  ResetPerTupleExprContext(waiting->estate);
  waiting->count = 0;
  waiting->bytes = 0;
}

// Whether the rows have the columns of the table, in its order, behind their own: without NULLs their bytes
// are then those of the table's rows.
bool HaveSameColumns(TupleDesc table, TupleDesc rows, const AttrNumber *source) {
  if (rows->natts != table->natts + kFirstColumn - 1) return false;
  for (int i = 0; i < table->natts; ++i) {
    // The descriptor decides whether the header of a short value is short.
    bool const is_plain = TupleDescAttr(table, i)->attstorage == TYPSTORAGE_PLAIN;
    if (source[i] != i + kFirstColumn ||
        is_plain != (TupleDescAttr(rows, source[i] - 1)->attstorage == TYPSTORAGE_PLAIN))
      return false;
  }
  return true;
}

// A row of the table from one without NULLs that has the same columns.
HeapTuple CopyColumns(MinimalTuple row, int columns) {
  constexpr Size kOwn = sizeof(int32) * (kFirstColumn - 1);
  static_assert(kOwn % MAXIMUM_ALIGNOF == 0, "what follows them is aligned as if it came first");
  const char *const first = reinterpret_cast<const char *>(row) - MINIMAL_TUPLE_OFFSET + row->t_hoff + kOwn;
  Size const size = row->t_len + MINIMAL_TUPLE_OFFSET - row->t_hoff - kOwn;
  Size const header = MAXALIGN(SizeofHeapTupleHeader);
  auto *tuple = static_cast<HeapTuple>(palloc(HEAPTUPLESIZE + header + size));
  tuple->t_len = static_cast<uint32>(header + size);
  ItemPointerSetInvalid(&tuple->t_self);
  tuple->t_tableOid = InvalidOid;
  tuple->t_data = reinterpret_cast<HeapTupleHeader>(reinterpret_cast<char *>(tuple) + HEAPTUPLESIZE);
  memset(tuple->t_data, 0, header);
  ItemPointerSetInvalid(&tuple->t_data->t_ctid);
  HeapTupleHeaderSetNatts(tuple->t_data, columns);
  tuple->t_data->t_infomask = row->t_infomask;
  tuple->t_data->t_hoff = static_cast<uint8>(header);
  memcpy(reinterpret_cast<char *>(tuple->t_data) + header, first, size);
  return tuple;
}

HeapTuple FormTuple(TupleDesc table, TupleTableSlot *row, const AttrNumber *source) {
  Datum values[MaxHeapAttributeNumber];
  bool nulls[MaxHeapAttributeNumber];
  slot_getallattrs(row);
  for (int i = 0; i < table->natts; ++i) {
    nulls[i] = source[i] == 0 || row->tts_isnull[source[i] - 1];
    values[i] = source[i] == 0 ? Datum{0} : row->tts_values[source[i] - 1];
  }
  return heap_form_tuple(table, values, nulls);
}

void Add(Waiting *waiting, TupleTableSlot *row, const AttrNumber *source) {
  Relation relation = waiting->table->ri_RelationDesc;
  if (waiting->count == waiting->made)
    waiting->slots[waiting->made++] = MakeSingleTupleTableSlot(waiting->desc, &TTSOpsHeapTuple);
  TupleTableSlot *slot = waiting->slots[waiting->count++];
  bool is_own;
  MinimalTuple const given = ExecFetchSlotMinimalTuple(row, &is_own);
  HeapTuple const tuple = waiting->has_same_columns && (given->t_infomask & HEAP_HASNULL) == 0
                              ? CopyColumns(given, waiting->desc->natts)
                              : FormTuple(waiting->desc, row, source);
  ExecStoreHeapTuple(tuple, slot, true);
  slot->tts_tableOid = RelationGetRelid(relation);
  if (RelationGetDescr(relation)->constr != nullptr) ExecConstraints(waiting->table, slot, waiting->estate);
  waiting->bytes += given->t_len;
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
  Waiting waiting = {};
  waiting.table = table;
  waiting.estate = estate;
  waiting.command = GetCurrentCommandId(true);
  waiting.desc = CreateTupleDescCopy(RelationGetDescr(table->ri_RelationDesc));
  waiting.has_same_columns = HaveSameColumns(waiting.desc, request.desc, source);
  waiting.slots = static_cast<TupleTableSlot **>(palloc(sizeof(TupleTableSlot *) * kMostRows));
  TakeLateIndexes(&waiting, source, tuplestore_tuple_count(request.rows));
  OrderedRows rows;
  BeginOrderedRows(request.rows, request.desc, has_order ? &order : nullptr, &rows);
  while (NextOrderedRow(&rows)) {
    pg::Proceed();
    Add(&waiting, rows.row, source);
  }
  Flush(&waiting);
  EndOrderedRows(&rows);
  InsertLateEntries(&waiting);
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
