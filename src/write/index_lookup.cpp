#include "write/index_lookup.h"

#include "mapping/mapping_query.h"
#include "pg/memory.h"
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

// Whether the heap holds all that a SELECT reads. Extensions that keep a table's rows elsewhere clear them by
// a trigger on TRUNCATE.
bool IsPlain(Relation relation) {
  Form_pg_class form = relation->rd_rel;
  TriggerDesc *triggers = relation->trigdesc;
  return form->relkind == RELKIND_RELATION && form->relam == HEAP_TABLE_AM_OID && !form->relhassubclass &&
         !form->relrowsecurity && !IsSystemRelation(relation) &&
         (triggers == nullptr ||
          (!triggers->trig_truncate_before_statement && !triggers->trig_truncate_after_statement));
}

// The rule of the planner: an index that is newer than the snapshot may lack versions that the snapshot sees.
bool MayUse(Relation index) {
  return index->rd_index->indisvalid &&
         (!index->rd_index->indcheckxmin ||
          TransactionIdPrecedes(HeapTupleHeaderGetXmin(index->rd_indextuple->t_data), TransactionXmin));
}

bool HasSameTypes(Relation relation, const Request &request) {
  for (int i = 0; i < request.column_count; ++i) {
    Form_pg_attribute given = TupleDescAttr(request.desc, request.columns[i].offered - 1);
    Form_pg_attribute column = TupleDescAttr(RelationGetDescr(relation), request.columns[i].stored - 1);
    if (column->attisdropped || given->atttypid != column->atttypid) return false;
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

void LookUpRows(const Request &request, Relation relation, Relation index) {
  auto *source = static_cast<AttrNumber *>(palloc0(sizeof(AttrNumber) * RelationGetDescr(relation)->natts));
  for (int i = 0; i < request.column_count; ++i)
    source[request.columns[i].stored - 1] = request.columns[i].offered;
  Key key;
  PrepareKey(index, source, &key);
  KeyOrder order;
  FindKeyOrder(index, source, &order);
  TupleTableSlot *stored = table_slot_create(relation, nullptr);
  IndexScanDesc scan = pg::BeginIndexScan(relation, index, GetActiveSnapshot(), key.count);
  Trail trail = {RelationGetNumberOfBlocks(relation), false, false, {}};
  LookedUpRow *found = request.found;
  OrderedRows rows;
  BeginOrderedRows(request.rows, request.desc, &order, &rows);
  while (NextOrderedRow(&rows)) {
    CHECK_FOR_INTERRUPTS();
    slot_getallattrs(rows.row);
    found->number = DatumGetInt32(rows.row->tts_values[0]);
    bool is_there = FindBehind(relation, trail, key, rows.row, stored);
    if (!is_there) {
      SetKey(rows.row, &key);
      index_rescan(scan, key.keys, key.count, nullptr, 0);
      is_there = index_getnext_slot(scan, ForwardScanDirection, stored);
      if (is_there) trail.followed = trail.begun && IsBehind(trail, &stored->tts_tid);
    }
    if (is_there) {
      trail.begun = true;
      trail.last = found->place = stored->tts_tid;
    }
    found->stored = !is_there                           ? Stored::kNothing
                    : IsSame(request, stored, rows.row) ? Stored::kSame
                                                        : Stored::kOther;
    ++found;
  }
  EndOrderedRows(&rows);
  index_endscan(scan);
  ExecDropSingleTupleTableSlot(stored);
}

bool LookUp(const Request &request) {
  // Takes the snapshot that a statement would have.
  CommandCounterIncrement();
  PushCopiedSnapshot(GetTransactionSnapshot());
  UpdateActiveSnapshotCommandId();
  Relation relation = table_open(request.relation, AccessShareLock);
  bool may = IsPlain(relation) && MaySelect(request.relation) && HasSameTypes(relation, request);
  if (may) {
    Relation index = index_open(request.index, AccessShareLock);
    may = MayUse(index);
    if (may) LookUpRows(request, relation, index);
    index_close(index, NoLock);
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
