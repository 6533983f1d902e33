// Compares the rows that keys yield with those that the target has, and changes nothing.
//
// A row is equal if a run would leave it as it is: with on_conflict 'update' all columns that the mapping
// fills are the same, with 'fill' those of them that are NULL in the target, with 'nothing' it is there, and
// with a SET list that list would change nothing.
#pragma once

#include "core/packed_items.h"
#include "ledger/ledger.h"
#include "ledger/row_hash.h"
#include "mapping/mapping_query.h"
#include "mapping/target_statements.h"
#include "pg/kept_statement.h"
#include "source/entry.h"
#include "store/row_parts.h"
#include "write/writer.h"

namespace prm {

// Each row that was compared is in one of these counts.
struct ComparedRows {
  int64 equal = 0;
  int64 missing = 0;
  int64 expiry_differs = 0;  // only the column that is a copy of expires_at differs, by more than a second
  int64 different = 0;

  bool IsEqual() const { return missing == 0 && expiry_differs == 0 && different == 0; }
  void Add(const ComparedRows &other);
};

// A row that is not equal, or a column of it.
struct RowDifference {
  std::string mapping;
  std::string kind;                                      // missing, expiry_differs, different
  std::string row_key;                                   // the key columns, as the text of an array
  std::optional<std::string> column;                     // that differs; none: the row is missing
  std::optional<std::string> redis_value, stored_value;  // their beginning, or where they begin to differ
  bool is_expiry = false;                                // the column is a copy of expires_at
};

// The findings of one mapping for the entries of a batch, by their numbers.
struct MappingComparison {
  std::vector<ComparedRows> rows;
  std::vector<std::pair<int, RowDifference>> differences;
  std::vector<PackedItem> met;  // the hashes of rows that were yielded
};

// Asks for a comparison instead of a store (BatchOptions), and takes its result.
struct BatchComparison {
  size_t most_differences = 0;  // so many are described
  // Keeps hashes of rows that keys yield, which a try hands over in its subtransaction where there are many;
  // the others are in met_rows. Nothing: none are wanted.
  std::function<void(const Mapping &, std::vector<PackedItem>)> keep_met;

  struct OfKey {
    std::map<std::string, ComparedRows> rows;  // by mapping
    std::vector<RowDifference> differences;
    bool IsEqual() const;
  };
  std::map<const source::Entry *, OfKey> unequal;           // keys with a row that is not equal
  std::map<std::string, ComparedRows> equal;                // of all other keys
  std::map<std::string, std::vector<PackedItem>> met_rows;  // by mapping

  // Adds what a try that holds has found for a mapping. Call Settle when all mappings of a pattern have been
  // added, with the entries that were not refused.
  void Settle(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
              std::map<std::string, MappingComparison> &found);
};

class RowComparer {
 public:
  // Its arguments must outlive it. Errors: those of TargetStatements and of RowHasher.
  RowComparer(const Mapping &mapping, const Target &target, const MappingQuery &query);

  // Compares the rows of a part, of which `outcomes` is what Writer::Compare says. Adds to `found`, whose
  // rows are as many as the batch has entries. Under the mapping's settings; needs SPI. Errors: those of the
  // look-up.
  void Compare(RowPart &part, const Writer::Outcomes &outcomes, const BatchComparison &wanted,
               MappingComparison &found);

 private:
  void CompareColumns(RowPart &part, pg::Tuplestore &rows, const BatchComparison &wanted,
                      MappingComparison &found);
  void NoteMet(RowPart &part, MappingComparison &found);
  std::string LookUpStatement(const Ledger &ledger) const;

  const Mapping &mapping_;
  const MappingQuery &query_;
  TargetStatements statements_;
  pg::KeptStatement look_up_;      // (row, found, row_key, then same, stored and offered of each column)
  pg::KeptStatement stored_hash_;  // (hash) of the rows that are there
  bool hashes_stored_keys_;        // equal keys may have different images
  int expiry_ = -1;                // among the compared columns
  std::vector<std::pair<int, Oid>> keys_;  // attributes of the query's rows
  RowHasher hasher_;
};

}  // namespace prm
