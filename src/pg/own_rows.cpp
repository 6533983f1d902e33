#include "pg/own_rows.h"

#include "pg/guard.h"

extern "C" {
#include "catalog/indexing.h"
#include "commands/sequence.h"
}

namespace prm::pg {

int64 NextValue(Oid sequence) {
  return Call([&] {
    (void)GetCurrentTransactionId();
    return nextval_internal(sequence, false);
  });
}

void StoreRow(Oid table, std::initializer_list<Datum> values) {
  const Datum *const given = values.begin();
  auto const count = static_cast<int>(values.size());
  Call([&] {
    Relation relation = table_open(table, RowExclusiveLock);
    TupleDesc const desc = RelationGetDescr(relation);
    auto *row = static_cast<Datum *>(palloc0(sizeof(Datum) * desc->natts));
    auto *nulls = static_cast<bool *>(palloc(sizeof(bool) * desc->natts));
    for (int i = 0; i < desc->natts; ++i) {
      nulls[i] = i >= count;
      if (i < count) row[i] = given[i];
    }
    HeapTuple tuple = heap_form_tuple(desc, row, nulls);
    CatalogTupleInsert(relation, tuple);
    heap_freetuple(tuple);
    pfree(row);
    pfree(nulls);
    table_close(relation, NoLock);
  });
}

}  // namespace prm::pg
