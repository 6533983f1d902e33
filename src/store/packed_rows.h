// Rows of a mapping with a packed ledger: their hashes, from a batch or from the names of keys alone.
#pragma once

#include "mapping/mapping_query.h"
#include "store/packed_ledger.h"
#include "store/row_hash.h"

namespace prm {

class PackedRows {
 public:
  // Its arguments must outlive it. Errors: 55000 when the query and the target are no longer such that a
  // packed ledger can tell rows apart; those of RowHasher.
  PackedRows(const Mapping &mapping, const BatchShape &shape, const Target &target,
             const MappingQuery &query);

  const PackedLedger &ledger() const { return ledger_; }

  // The hashes of rows that have the descriptor of the query, by their numbers. wanted: which of them.
  std::vector<Hash128> Hash(pg::Tuplestore &rows, const std::function<bool(int)> &wanted);

  // The hashes of the rows that keys have, whether these are in the target or not.
  std::vector<Hash128> HashKeys(const std::vector<const source::Entry *> &entries,
                                const std::vector<int> &which);

  // Deletes the rows of keys that yield none any more, as far as they are the mapping's, by a statement such
  // as that of DeleteStatement, and strikes them off. Returns how many there were.
  int64 DeleteRowsOf(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                     const std::string &statement);

  // "row_hash(alias.a, …)"
  std::string HashExpression(const std::string &alias) const;

 private:
  struct KeyColumnSource {
    int batch_column;  // of redis_batch
    int row_column;    // of the query's rows
  };

  TupleDesc KeysDesc() const;
  void FillKeys(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                TupleDesc desc, pg::Tuplestore &keys, std::vector<Hash128> &hashes);

  const Mapping &mapping_;
  const BatchShape &shape_;
  const Target &target_;
  const MappingQuery &query_;
  std::vector<KeyColumnSource> sources_;  // of each key column
  std::vector<bool> needed_;              // columns of redis_batch
  PackedLedger ledger_;
  RowHasher hasher_;
};

}  // namespace prm
