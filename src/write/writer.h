// Stores the rows of a mapping's query in its target and returns the outcome of each.
//
// Rows are looked up first, so that equal rows are not written. They are inserted without that only if the
// target was seen to hold none of them. Plain tables are looked up in their index, filled and changed in
// bulk, all others by statements.
#pragma once

#include "mapping/catalog.h"
#include "mapping/mapping_query.h"
#include "mapping/target.h"
#include "mapping/target_statements.h"
#include "pg/kept_statement.h"
#include "write/bulk_update.h"
#include "write/index_lookup.h"
#include "write/journal.h"
#include "write/row_counts.h"

namespace prm {

enum class RowOutcome : char { kInserted, kUpdated, kUnchanged, kFolded, kNoTargetRow };

// Thrown when the target did not store what it was given: a trigger or rule dropped rows, or another session
// changed them meanwhile. Handled like an error of the data.
struct RowsNotStored {};

class Writer {
 public:
  using Outcomes = std::vector<std::pair<int, RowOutcome>>;

  // `target` must outlive the writer. Errors: those of TargetStatements.
  Writer(const Mapping &mapping, const Target &target, const std::vector<const TargetColumn *> &columns)
      : Writer(mapping, target, columns, TargetStatements(mapping, target, columns)) {}

  // Executes the statements over no rows. Errors: theirs.
  void RunWithoutRows(TupleDesc desc);

  // Stores the rows, which have the descriptor `desc` of MappingQuery and need not be all of a query. Returns
  // the outcome of each row, in the order of the rows. Needs SPI; works in the caller's subtransaction with a
  // fresh snapshot per statement. Errors: those of the statements; RowsNotStored.
  Outcomes Write(pg::Tuplestore &rows, TupleDesc desc, const std::vector<int> &row_numbers,
                 const std::vector<int> &lost);

  // Tells what Write would do to the rows, without doing it. Needs SPI; takes a fresh snapshot. Errors: those
  // of the statement that looks rows up.
  Outcomes Compare(pg::Tuplestore &rows, TupleDesc desc, const std::vector<int> &lost);

  // Called before rows are updated; redis_rows then holds them.
  void set_before_update(std::function<void()> call) { before_update_ = std::move(call); }

  // Keeps the earlier images of rows. It must outlive the writer.
  void set_journal(Journal *journal) { journal_ = journal; }

  // Whether rows are inserted and updated in bulk if that has the effect of statements. After an error they
  // are not, so that the error is that of the statement.
  void set_inserts_in_bulk(bool inserts) {
    inserts_in_bulk_ = inserts;
    inserted_in_bulk_ = false;
  }
  // Whether rows were stored in bulk since that was set, and still may be.
  bool inserts_in_bulk() const { return inserts_in_bulk_ && inserted_in_bulk_; }

  // Whether rows may be inserted without looking for them first. Set when a lookup found none of a batch's
  // rows, or when the target is empty; cleared by the first conflict.
  bool expects_new_rows() const { return expects_new_rows_; }
  void set_expects_new_rows(bool expects) { expects_new_rows_ = expects; }

 private:
  Writer(const Mapping &mapping, const Target &target, const std::vector<const TargetColumn *> &columns,
         TargetStatements statements);
  Outcomes LookUp(pg::Tuplestore &rows, TupleDesc desc, const std::vector<int> &lost);
  void Divide(pg::Tuplestore &rows, TupleDesc desc, const Outcomes &outcomes, pg::Tuplestore &new_rows,
              pg::Tuplestore &changed_rows) const;
  void InsertRows(pg::Tuplestore &rows, TupleDesc desc, uint64 expected);
  void UpdateRows(pg::Tuplestore &rows, TupleDesc desc, uint64 expected);
  BulkUpdated UpdateInBulk(pg::Tuplestore &rows, TupleDesc desc, const KeptChanges *kept);

  std::string name_;
  const Target &relation_;
  const std::vector<const TargetColumn *> columns_;
  std::string target_;
  TargetKind kind_;
  bool insert_missing_;
  pg::KeptStatement look_up_, insert_, update_;
  std::optional<pg::KeptStatement> insert_returning_;  // the columns of the journal
  std::optional<Comparison> comparison_;               // none: on_conflict is a SET list
  std::vector<LookedUpRow> places_;  // of the rows that were looked up last, if without a statement
  std::function<void()> before_update_;
  Journal *journal_ = nullptr;
  const std::string is_of_batch_;
  bool expects_new_rows_ = false;
  bool inserts_in_bulk_ = true;
  bool inserted_in_bulk_ = false;
};

}  // namespace prm
