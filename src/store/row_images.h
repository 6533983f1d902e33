// The hashes and images of a mapping's rows: of the key columns, and of the others that its query fills.
#pragma once

#include "core/packed_items.h"
#include "ledger/row_hash.h"
#include "mapping/mapping_query.h"
#include "pg/kept_statement.h"

namespace prm {

// Whether triggers of the target, or of its partitions, may store something else than they are given. Needs
// SPI; the target is locked.
bool HasTriggers(const Target &target);

class RowImages {
 public:
  // Its arguments must outlive it. Errors: those of RowHasher.
  RowImages(const Target &target, const MappingQuery &query);

  // The image of a row of the query. Errors: those of RowHasher::Add.
  PackedItem ItemOf(TupleTableSlot *row, bool with_image = true);

  // Reads from the target the images of the rows of redis_rows, by their numbers.
  std::map<int, uint64> ReadStored();

  // "row_image(ROW(alias.a, …))" of the columns that the mapping fills.
  std::string Expression(const std::string &alias) const;
  // Fingerprint of these columns: of their order, names and types.
  int64 columns() const { return fingerprint_; }

  // The attribute of the query's rows that fills each key column, from 0.
  const std::vector<int> &key_columns() const { return key_columns_; }
  // Forgets what was added before an error.
  void Clear() { hasher_.Clear(); }

 private:
  int64 Fingerprint();
  void AddFieldTypes(Oid type);

  const Target &target_;
  std::vector<int> key_columns_;
  std::vector<std::pair<int, Oid>> image_columns_;    // of the query's rows
  std::vector<const TargetColumn *> stored_columns_;  // the same in the target
  RowHasher hasher_;
  int64 fingerprint_;
  std::optional<pg::KeptStatement> stored_;
};

}  // namespace prm
