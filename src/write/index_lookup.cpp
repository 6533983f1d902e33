#include "write/index_lookup.h"

#include "mapping/mapping_query.h"
#include "pg/meanwhile.h"
#include "pg/memory.h"
#include "pg/partition.h"
#include "write/key_order.h"

namespace prm {

using pg::Call;

namespace {

constexpr int kFirstColumn = QueryRows::kFirstColumn;

// A column of the target and the attribute of the rows that fills it.
struct ComparedColumn {
  AttrNumber stored;
  AttrNumber offered;
};

struct Request {
  Oid relation;
  Oid index;
  Comparison comparison;
  TupleDesc desc;
  Tuplestorestate *rows;
  const ComparedColumn *columns;
  int column_count;
  const ComparedColumn *compared;
  int compared_count;
  LookedUpRow *found;
};

// The functions below run inside pg::Call: plain C.

bool MaySelect(Oid relation) {
  // Extensions that audit or label see privileges being used through this hook.
  if (ExecutorCheckPerms_hook != nullptr) return false;
  return pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
         pg_attribute_aclcheck_all(relation, GetUserId(), ACL_SELECT, ACLMASK_ALL) == ACLCHECK_OK;
}

// Extensions that keep a table's rows elsewhere clear them by a trigger on TRUNCATE.
bool HasOwnRows(Relation relation) {
  TriggerDesc *triggers = relation->trigdesc;
  return !IsSystemRelation(relation) && (triggers == nullptr || (!triggers->trig_truncate_before_statement &&
                                                                 !triggers->trig_truncate_after_statement));
}

bool IsDivided(Relation relation) { return relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE; }

// Whether the heap, or those of the partitions, holds all that a SELECT reads.
bool IsPlain(Relation relation) {
  Form_pg_class form = relation->rd_rel;
  bool const is_heap =
      form->relkind == RELKIND_RELATION && form->relam == HEAP_TABLE_AM_OID && !form->relhassubclass;
  return (is_heap || IsDivided(relation)) && HasOwnRows(relation);
}

// The rule of the planner: an index that is newer than the snapshot may lack versions that the snapshot sees.
bool MayUse(Relation index) {
  return index->rd_index->indisvalid &&
         (!index->rd_index->indcheckxmin ||
          TransactionIdPrecedes(HeapTupleHeaderGetXmin(index->rd_indextuple->t_data), TransactionXmin));
}

bool HasSameTypes(Relation relation, const Request &request) {
  for (int i = 0; i < request.column_count; ++i) {
    if (request.columns[i].stored > RelationGetDescr(relation)->natts) return false;
    Form_pg_attribute given = TupleDescAttr(request.desc, request.columns[i].offered - 1);
    Form_pg_attribute column = TupleDescAttr(RelationGetDescr(relation), request.columns[i].stored - 1);
    if (column->attisdropped || given->atttypid != column->atttypid) return false;
  }
  return true;
}

// Whether a partition has the columns at the same places as its table.
bool HasSamePlaces(Relation partition, Relation table, const Request &request) {
  for (int i = 0; i < request.column_count; ++i) {
    int const column = request.columns[i].stored - 1;
    if (column >= RelationGetDescr(partition)->natts ||
        namestrcmp(&TupleDescAttr(RelationGetDescr(partition), column)->attname,
                   NameStr(TupleDescAttr(RelationGetDescr(table), column)->attname)) != 0)
      return false;
  }
  return true;
}

struct Key {
  int count;
  ComparedColumn columns[INDEX_MAX_KEYS];
  ScanKeyData equal[INDEX_MAX_KEYS];
  ScanKeyData is_null[INDEX_MAX_KEYS];
  ScanKeyData keys[INDEX_MAX_KEYS];  // of one row
};

void PrepareKey(Relation index, const AttrNumber *source, Key *key) {
  key->count = index->rd_index->indnkeyatts;
  for (int i = 0; i < key->count; ++i) {
    AttrNumber const column = index->rd_index->indkey.values[i];
    key->columns[i] = {column, source[column - 1]};
    Oid const type = index->rd_opcintype[i];
    Oid const equality = get_opfamily_member(index->rd_opfamily[i], type, type, BTEqualStrategyNumber);
    auto const number = static_cast<AttrNumber>(i + 1);
    ScanKeyEntryInitialize(&key->equal[i], 0, number, BTEqualStrategyNumber, InvalidOid,
                           index->rd_indcollation[i], get_opcode(equality), Datum{0});
    ScanKeyEntryInitialize(&key->is_null[i], SK_ISNULL | SK_SEARCHNULL, number, InvalidStrategy, InvalidOid,
                           InvalidOid, InvalidOid, Datum{0});
  }
}

void SetKey(TupleTableSlot *row, Key *key) {
  for (int i = 0; i < key->count; ++i) {
    int const column = key->columns[i].offered - 1;
    key->keys[i] = row->tts_isnull[column] ? key->is_null[i] : key->equal[i];
    if (!row->tts_isnull[column]) key->keys[i].sk_argument = row->tts_values[column];
  }
}

// Whether two rows have the same images, or both NULL, in a column.
bool HasSameImage(TupleTableSlot *stored, TupleTableSlot *offered, const ComparedColumn &column) {
  int const number = column.offered - 1;
  bool null;
  Datum const value = slot_getattr(stored, column.stored, &null);
  if (null || offered->tts_isnull[number]) return null && offered->tts_isnull[number];
  Form_pg_attribute type = TupleDescAttr(offered->tts_tupleDescriptor, number);
  return datum_image_eq(value, offered->tts_values[number], type->attbyval, type->attlen);
}

bool IsSame(const Request &request, TupleTableSlot *stored, TupleTableSlot *offered) {
  for (int i = 0; i < request.compared_count; ++i) {
    const ComparedColumn &column = request.compared[i];
    if (request.comparison == Comparison::kImages && !HasSameImage(stored, offered, column)) return false;
    if (request.comparison == Comparison::kNulls && slot_attisnull(stored, column.stored) &&
        !offered->tts_isnull[column.offered - 1])
      return false;
  }
  return true;
}

// Rows that an earlier run stored in a batch mostly follow one another in the heap. As long as they do, a row
// is looked for behind the previous one, which costs a tenth of a descent of the index.
struct Trail {
  BlockNumber blocks;
  bool followed;
  bool begun;
  ItemPointerData last;
};

bool IsBehind(const Trail &trail, ItemPointer place) {
  BlockNumber const block = ItemPointerGetBlockNumber(&trail.last);
  OffsetNumber const offset = ItemPointerGetOffsetNumber(place);
  return ItemPointerGetBlockNumber(place) == block
             ? offset == ItemPointerGetOffsetNumber(&trail.last) + 1
             : ItemPointerGetBlockNumber(place) == block + 1 && offset == FirstOffsetNumber;
}

bool IsAt(Relation relation, BlockNumber block, OffsetNumber offset, const Key &key, TupleTableSlot *row,
          TupleTableSlot *stored) {
  ItemPointerData place;
  ItemPointerSet(&place, block, offset);
  if (!table_tuple_fetch_row_version(relation, &place, GetActiveSnapshot(), stored)) return false;
  // Values that are equal with other images are left to the index.
  for (int i = 0; i < key.count; ++i)
    if (!HasSameImage(stored, row, key.columns[i])) return false;
  return true;
}

bool FindBehind(Relation relation, const Trail &trail, const Key &key, TupleTableSlot *row,
                TupleTableSlot *stored) {
  if (!trail.followed) return false;
  BlockNumber const block = ItemPointerGetBlockNumber(&trail.last);
  auto const next = static_cast<OffsetNumber>(ItemPointerGetOffsetNumber(&trail.last) + 1);
  return IsAt(relation, block, next, key, row, stored) ||
         (block + 1 < trail.blocks && IsAt(relation, block + 1, FirstOffsetNumber, key, row, stored));
}

// Each partition pins buffers, and is looked for among the others.
constexpr int kMostPartitions = 256;

// A table, or a partition. One that is divided has no rows of its own.
struct Table {
  Relation relation;
  Relation index;
  Key key;
  IndexScanDesc scan;
  TupleTableSlot *stored;
  Trail trail;
};

// All that are open, those that are divided among them. The first is the target.
struct Tables {
  const Request *request;
  AttrNumber *source;  // for each column of the target, the attribute of the rows that fills it
  Table *open[kMostPartitions];
  int count;
};

// Opens a table that a SELECT would read as an index scan does; nullptr: it would not.
Table *OpenTable(Tables *tables, Oid oid, Oid index) {
  const Request &request = *tables->request;
  if (tables->count == kMostPartitions || !OidIsValid(index)) return nullptr;
  auto *table = static_cast<Table *>(palloc0(sizeof(Table)));
  table->relation = table_open(oid, AccessShareLock);
  table->index = index_open(index, AccessShareLock);
  tables->open[tables->count++] = table;
  const Table *target = tables->open[0];
  if (!IsPlain(table->relation) || !MayUse(table->index) || !HasSameTypes(table->relation, request) ||
      !HasSamePlaces(table->relation, target->relation, request))
    return nullptr;
  if (IsDivided(table->relation)) return pg::IsDividedAs(table->relation, table->index) ? table : nullptr;
  PrepareKey(table->index, tables->source, &table->key);
  table->stored = table_slot_create(table->relation, nullptr);
  table->scan = pg::BeginIndexScan(table->relation, table->index, GetActiveSnapshot(), table->key.count);
  table->trail.blocks = RelationGetNumberOfBlocks(table->relation);
  return table;
}

void CloseTables(Tables *tables) {
  for (int i = 0; i < tables->count; ++i) {
    Table *table = tables->open[i];
    if (table->scan != nullptr) index_endscan(table->scan);
    if (table->stored != nullptr) ExecDropSingleTupleTableSlot(table->stored);
    index_close(table->index, NoLock);
    table_close(table->relation, NoLock);
  }
}

// Where a row is stored, if it is: a table, or nothing. False: a SELECT would have to tell.
bool FindTableOf(Tables *tables, TupleTableSlot *row, Table **found) {
  Table *table = tables->open[0];
  while (table != nullptr && IsDivided(table->relation)) {
    Oid const oid = pg::FindPartition(table->relation, row, tables->source);
    Table *partition = nullptr;
    for (int i = 1; i < tables->count && partition == nullptr; ++i)
      if (RelationGetRelid(tables->open[i]->relation) == oid) partition = tables->open[i];
    if (partition == nullptr && OidIsValid(oid)) {
      partition = OpenTable(tables, oid, pg::FindIndexOfPartition(oid, RelationGetRelid(table->index)));
      if (partition == nullptr) return false;
    }
    table = partition;
  }
  *found = table;
  return true;
}

bool FindRow(Table *table, TupleTableSlot *row) {
  if (FindBehind(table->relation, table->trail, table->key, row, table->stored)) return true;
  SetKey(row, &table->key);
  index_rescan(table->scan, table->key.keys, table->key.count, nullptr, 0);
  bool const is_there = index_getnext_slot(table->scan, ForwardScanDirection, table->stored);
  if (is_there) table->trail.followed = table->trail.begun && IsBehind(table->trail, &table->stored->tts_tid);
  return is_there;
}

bool LookUpRows(Tables *tables) {
  const Request &request = *tables->request;
  // INSERT stores the rows of partitions as they come, BulkInsert in the order of the index.
  KeyOrder order;
  bool const is_divided = IsDivided(tables->open[0]->relation);
  if (!is_divided) FindKeyOrder(tables->open[0]->index, tables->source, &order);
  LookedUpRow *found = request.found;
  OrderedRows rows;
  BeginOrderedRows(request.rows, request.desc, is_divided ? nullptr : &order, &rows);
  bool may = true;
  while (may && NextOrderedRow(&rows)) {
    CHECK_FOR_INTERRUPTS();
    pg::Proceed();
    slot_getallattrs(rows.row);
    Table *table = nullptr;
    may = FindTableOf(tables, rows.row, &table);
    found->number = DatumGetInt32(rows.row->tts_values[0]);
    bool const is_there = table != nullptr && FindRow(table, rows.row);
    if (is_there) {
      table->trail.begun = true;
      table->trail.last = found->place = table->stored->tts_tid;
    }
    found->stored = !is_there                                  ? Stored::kNothing
                    : IsSame(request, table->stored, rows.row) ? Stored::kSame
                                                               : Stored::kOther;
    ++found;
  }
  EndOrderedRows(&rows);
  return may;
}

bool LookUp(const Request &request) {
  // Takes the snapshot that a statement would have.
  CommandCounterIncrement();
  PushCopiedSnapshot(GetTransactionSnapshot());
  UpdateActiveSnapshotCommandId();
  Relation relation = table_open(request.relation, AccessShareLock);
  // Those who read a table by its name need no rights on partitions, and only its row security applies.
  bool may = !relation->rd_rel->relrowsecurity && MaySelect(request.relation);
  if (may) {
    auto *tables = static_cast<Tables *>(palloc0(sizeof(Tables)));
    tables->request = &request;
    tables->source =
        static_cast<AttrNumber *>(palloc0(sizeof(AttrNumber) * RelationGetDescr(relation)->natts));
    for (int i = 0; i < request.column_count; ++i)
      tables->source[request.columns[i].stored - 1] = request.columns[i].offered;
    may = OpenTable(tables, request.relation, request.index) != nullptr && LookUpRows(tables);
    CloseTables(tables);
  }
  table_close(relation, NoLock);
  PopActiveSnapshot();
  return may;
}

}  // namespace

std::optional<std::vector<LookedUpRow>> LookUpInIndex(const Target &target,
                                                      const std::vector<const TargetColumn *> &columns,
                                                      Comparison comparison, TupleDesc desc,
                                                      pg::Tuplestore &rows) {
  if (!OidIsValid(target.key_index)) return std::nullopt;
  std::vector<ComparedColumn> all, compared;
  for (const TargetColumn *column : columns) {
    all.push_back({column->number, static_cast<AttrNumber>(all.size() + kFirstColumn)});
    bool const is_key = std::any_of(target.keys.begin(), target.keys.end(), [&](const KeyColumn &key) {
      return key.column.number == column->number;
    });
    if (!is_key && !column->identity_always) compared.push_back(all.back());
  }
  if (comparison == Comparison::kNone) compared.clear();
  std::vector<LookedUpRow> found(static_cast<size_t>(rows.size()));
  Request const request = {target.oid,
                           target.key_index,
                           comparison,
                           desc,
                           rows.get(),
                           all.data(),
                           static_cast<int>(all.size()),
                           compared.data(),
                           static_cast<int>(compared.size()),
                           found.data()};
  pg::Context context("redis_migrate look-up");
  pg::SwitchContext in_context(context.get());
  if (!Call([&] { return LookUp(request); })) return std::nullopt;
  return found;
}

}  // namespace prm
