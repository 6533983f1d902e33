#include "pg/partition.h"

extern "C" {
#include "catalog/partition.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/partcache.h"
}

namespace prm::pg {

namespace {

// The number of a partition; -1: none.
int NumberOfPartition(PartitionKey key, PartitionBoundInfo bounds, Datum *values, bool *nulls) {
  bool is_equal = false;
  switch (key->strategy) {
    case PARTITION_STRATEGY_HASH: {
      uint64 const hash =
          compute_partition_hash_value(key->partnatts, key->partsupfunc, key->partcollation, values, nulls);
      return bounds->indexes[hash % static_cast<uint64>(bounds->nindexes)];
    }
    case PARTITION_STRATEGY_LIST: {
      if (nulls[0]) return partition_bound_accepts_nulls(bounds) ? bounds->null_index : bounds->default_index;
      int const at =
          partition_list_bsearch(key->partsupfunc, key->partcollation, bounds, values[0], &is_equal);
      return at >= 0 && is_equal ? bounds->indexes[at] : bounds->default_index;
    }
    default: {
      for (int i = 0; i < key->partnatts; ++i)
        if (nulls[i]) return bounds->default_index;
      int const at = partition_range_datum_bsearch(key->partsupfunc, key->partcollation, bounds,
                                                   key->partnatts, values, &is_equal);
      int const number = bounds->indexes[at + 1];
      return number >= 0 ? number : bounds->default_index;
    }
  }
}

}  // namespace

bool IsDividedAs(Relation table, Relation index) {
  PartitionKey key = RelationGetPartitionKey(table);
  for (int i = 0; i < key->partnatts; ++i) {
    bool is_same = false;
    for (int k = 0; k < index->rd_index->indnkeyatts; ++k)
      is_same = is_same || (index->rd_index->indkey.values[k] == key->partattrs[i] &&
                            index->rd_indcollation[k] == key->partcollation[i]);
    if (!is_same) return false;
  }
  return true;
}

Oid FindPartition(Relation table, TupleTableSlot *row, const AttrNumber *source) {
  PartitionKey key = RelationGetPartitionKey(table);
  PartitionDesc partitions = RelationGetPartitionDesc(table, true);
  if (partitions->nparts == 0) return InvalidOid;
  Datum values[PARTITION_MAX_KEYS];
  bool nulls[PARTITION_MAX_KEYS];
  for (int i = 0; i < key->partnatts; ++i)
    values[i] = slot_getattr(row, source[key->partattrs[i] - 1], &nulls[i]);
  int const number = NumberOfPartition(key, partitions->boundinfo, values, nulls);
  return number < 0 ? InvalidOid : partitions->oids[number];
}

Oid FindIndexOfPartition(Oid partition, Oid index) {
  Relation relation = table_open(partition, AccessShareLock);
  Oid const found =
      relation->rd_rel->relkind == RELKIND_FOREIGN_TABLE ? InvalidOid : index_get_partition(relation, index);
  table_close(relation, NoLock);
  return found;
}

}  // namespace prm::pg
