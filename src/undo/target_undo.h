// Undoes changes of a mapping's rows in its target.
#pragma once

#include "ledger/inserted_rows.h"
#include "ledger/ledger.h"
#include "pg/kept_statement.h"
#include "store/packed_rows.h"
#include "undo/undo_counts.h"

namespace prm {

// A change of a row, as the journal has it.
struct JournalEntry {
  size_t number;  // in a transaction: older ones have higher numbers
  SipKey salt;    // of its digests
  JournalLine line;
};

// Made anew in each transaction. Needs SPI; works with the rights of the mapping's owner, who calls it.
class TargetUndo {
 public:
  // claims: rows that the run has changed were nobody's before. Errors: those of LoadTarget, MappingQuery and
  // PackedRows.
  TargetUndo(const Mapping &mapping, bool force, bool claims);
  ~TargetUndo();

  // Undoes entries of one list of columns, of these types then, the newest first. keys: so many of the first
  // are the key columns.
  // is_left: rows of which newer entries were left. Errors: those of the server; others are findings.
  UndoFindings UndoEntries(const std::vector<std::string> &columns, const std::vector<std::string> &types,
                           size_t keys, const std::vector<JournalEntry> &entries,
                           const std::function<bool(const RowText &)> &is_left);

  // Removes inserted rows, named by ascending hashes, unless they are not as the images say. Adds those that
  // are left to `left`, and returns those that were not tried because this transaction has kept
  // most_subtransactions. Errors: as above.
  std::vector<PackedItem> RemoveInserted(const std::vector<PackedItem> &items, int most_subtransactions,
                                         std::vector<PackedItem> &left, UndoFindings &findings);
  // Fingerprint of the columns of images. Errors: those of MappingQuery and RowImages.
  int64 image_columns();

 private:
  static constexpr char kUndoName[] = "redis_undo";
  static constexpr char kChangedReason[] = "somebody else has changed the row since";
  static constexpr char kHiddenReason[] = "row security may hide it from the migration's owner";

  struct Row {  // and all of its entries
    RowText key;
    std::vector<const JournalEntry *> entries;
  };
  struct Column {
    const TargetColumn *column;
    size_t place;     // in an entry
    std::string was;  // its type then
  };
  // The error that keeps rows from being undone.
  struct Refusal {
    std::string sqlstate, reason;
  };
  using Attempt = std::function<std::optional<Refusal>(const std::vector<size_t> &which, bool keep)>;
  using Refuse = std::function<void(size_t row, const Refusal &refusal)>;
  void Divide(const std::vector<size_t> &which, const Attempt &attempt, const Refuse &refuse);
  void FindGood(const std::vector<size_t> &which, const Attempt &attempt, const Refuse &refuse,
                std::vector<size_t> &good);
  std::optional<Refusal> InTrial(bool keep, const std::function<void()> &body);
  void UndoRows(const std::vector<Row> &rows, UndoFindings &findings);
  void TryRows(const std::vector<const Row *> &rows, UndoFindings &findings);
  bool Decide(const Row &row, std::optional<RowText> &state, UndoFindings &findings) const;
  bool IsAsLeft(const JournalEntry &entry, const std::optional<RowText> &state) const;
  RowText CommonOf(const RowText &texts) const;
  void PutKeys(int number, const RowText &key, pg::Tuplestore &rows) const;
  // The inserted rows that were removed, and those that were left, by their hashes.
  struct Removal {
    std::vector<PackedItem> removed, left;
  };
  void RemoveFound(pg::Tuplestore &found, UndoFindings &findings, Removal &removal);
  void RefuseFound(pg::Tuplestore &row, const Refusal &refusal, UndoFindings &findings, Removal &removal);
  void TryRemove(int64 count, UndoFindings &findings, Removal &removal);
  void StrikeOff(const std::vector<PackedItem> *removed);
  static std::vector<PackedItem> HashesOf(const pg::Rows &rows, int column);
  std::string ImageExpression(const std::string &alias) const;
  void MergeEqualKeys(std::vector<Row> &rows);
  void Execute(const std::string &sql, int64 expected);
  TupleDesc Desc(bool keys_only, const char *more, Oid more_type) const;
  std::string IsRow(const std::string &alias) const;

  Mapping mapping_;
  bool force_;
  bool claims_;
  Target target_;
  std::vector<Column> columns_;  // the key columns first
  size_t key_count_;
  std::optional<BatchShape> shape_;
  std::optional<MappingQuery> query_;
  std::optional<PackedRows> packed_;
  std::optional<RowImages> images_;  // if that is not there, and rows are to be removed
  bool hides_rows_;                  // row security may
};

}  // namespace prm
