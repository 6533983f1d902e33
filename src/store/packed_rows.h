// Rows of a mapping with a packed ledger: their hashes and images, from a batch or from the target.
#pragma once

#include "core/hash_set.h"
#include "ledger/packed_ledger.h"
#include "ledger/row_hash.h"
#include "mapping/batch_relation.h"
#include "mapping/mapping_query.h"
#include "pg/kept_statement.h"
#include "store/row_images.h"
#include "write/writer.h"

namespace prm {

class PackedRows {
 public:
  // Its arguments must outlive it. Errors: 55000 if the query and the target no longer allow a packed ledger
  // to tell rows apart, or if its entries are hashes of other key columns; those of RowHasher.
  PackedRows(const Mapping &mapping, const Target &target, const MappingQuery &query);

  // Keeps the earlier images of rows that are deleted or changed. It must outlive this.
  void set_journal(Journal *journal) { journal_ = journal; }

  // Whether the name of a key determines all key columns.
  bool keys_have_one_row() const { return named_.size() == sources_.size(); }

  // Reads from the target, before they are changed, the images of the rows of redis_rows. The next Keep uses
  // them.
  void ReadPriors() { priors_ = images_.ReadStored(); }

  // The fates of the rows of a batch, indexed from the number of the first row on.
  enum class Fate : char { kNothing, kInserted, kUpdated, kClaimed };

  // Records what a batch did to rows, which have the descriptor of the query. takes_changed: rows that were
  // updated become the mapping's. in_journal: the journal has those that were inserted. seen_run: records the
  // rows as met by that run, which prunes.
  void Keep(pg::Tuplestore &rows, int first, const std::vector<Fate> &fates, bool takes_changed,
            bool in_journal, std::optional<int64> run_id, std::optional<int64> seen_run);

  // Deletes, as on_delete says, the rows of keys that are the mapping's and that the keys no longer yield,
  // and their entries. All rows of an exclusive mapping are its own. yielded: rows with the descriptor of the
  // query; nullptr: none.
  void DeleteRowsOf(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                    pg::Tuplestore *yielded, std::optional<int64> run_id, RowCounts &counts);

  // Whether an element of a value of that type has at most one row, which its name and that of its key
  // determine.
  bool FindsElements(rdb::ValueType type) const;

  // As DeleteRowsOf, for single elements: `parts` are entries that hold only a part of their key.
  // FindsElements must be true for their types.
  void DeleteElementsOf(const std::vector<const source::Entry *> &parts, pg::Tuplestore &yielded,
                        std::optional<int64> run_id, RowCounts &counts);

  // Records the rows that keys have in the target as met.
  void NoteSeenRowsOf(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                      int64 run_id);

  // Adds the rows that DeleteUnseen would delete now, as (row_key, redis_hash). row_key: the expression of
  // their key columns.
  void FindUnseen(int64 run_id, const std::string &row_key, pg::Tuplestore &rows);

  // Deletes, as on_delete says, the rows of the target that have an entry and that the run has not met, in
  // one scan of the target, and their entries. For an exclusive mapping, a second scan deletes rows without
  // an entry.
  void DeleteUnseen(int64 run_id, RowCounts &counts);

  // "row_image(ROW(alias.a, …))" of the columns that the mapping fills.
  std::string ImageExpression(const std::string &alias) const { return images_.Expression(alias); }
  const PackedLedger &ledger() const { return ledger_; }

 private:
  struct KeyColumnSource {
    int name_column;  // of redis_batch without its values; -1: the key's name does not determine it
    int row_column;   // of the query's rows
  };
  // Rows of the target: their key columns, and what the ledger needs.
  struct Stored {
    pg::Tuplestore keys;
    std::vector<PackedItem> items;
  };

  // The entries of rows that the run has not met, and of an exclusive mapping those that it has.
  struct Unseen {
    TupleDesc desc;
    pg::Tuplestore gone, seen;
  };
  void ReadUnseen(int64 run_id, bool takes, Unseen &unseen);
  std::string IsUnseen() const;
  void FindElementColumn();
  void MakeStatements();
  TupleDesc KeysDesc(const std::vector<size_t> &keys, bool with_image) const;
  TupleDesc GoneDesc() const;  // all of them
  void FillNames(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                 TupleDesc desc, pg::Tuplestore &names);
  void FillElementNames(const std::vector<const source::Entry *> &parts, TupleDesc desc,
                        pg::Tuplestore &names);
  // Puts the values of key columns, taken from these columns of redis_batch.
  void PutNames(const std::vector<const source::Entry *> &entries, TupleDesc batch_desc,
                pg::Tuplestore &batch, const std::vector<size_t> &keys, const std::vector<int> &columns,
                TupleDesc desc, pg::Tuplestore &names);
  FillOptions NameOptions(const std::optional<std::vector<std::string>> &any_type) const;
  // Finds the rows that keys have in the target, without those that are yielded.
  void FindStored(const std::vector<const source::Entry *> &entries, const std::vector<int> &which,
                  pg::Tuplestore *yielded, Stored &stored);
  void FindLeft(pg::Tuplestore &found, pg::Tuplestore &yielded, Stored &stored);
  // As above, for rows that `find` looks up by name.
  void FindNamed(TupleDesc desc, pg::Tuplestore &names, pg::KeptStatement &find, pg::Tuplestore *yielded,
                 Stored &stored);
  void DeleteStored(Stored &stored, std::optional<int64> run_id, RowCounts &counts);
  // Statements that delete rows of the target that redis_gone names by a condition.
  struct DeleteStatements {
    std::string condition;
    pg::KeptStatement::Planning planning;
    pg::KeptStatement count_changed;  // those that are not as they were stored; only of a SET list
    pg::KeptStatement remove;
  };
  std::unique_ptr<DeleteStatements> MakeDeleteStatements(const std::string &condition,
                                                         pg::KeptStatement::Planning planning) const;
  void DeleteGone(TupleDesc desc, pg::Tuplestore &gone, DeleteStatements &statements, RowCounts &counts);
  void ExecuteDelete(DeleteStatements &statements, RowCounts &counts);

  const Mapping &mapping_;
  const Target &target_;
  const MappingQuery &query_;
  BatchShape names_;                      // redis_batch without values
  std::vector<bool> needed_;              // columns of names_
  std::vector<KeyColumnSource> sources_;  // of each key column
  std::vector<size_t> named_;             // key columns that the key's name tells
  std::vector<size_t> all_keys_;          // key columns
  BatchShape elements_;                   // redis_batch with elements
  std::vector<bool> elements_needed_;     // columns of it that tell the key columns
  std::vector<int> element_columns_;      // of each key column; empty: an element does not tell them all
  Content element_ = Content::kEntry;     // the one that is not of the key's name
  RowImages images_;
  RowHasher hasher_;
  PackedLedger ledger_;
  Journal *journal_ = nullptr;
  std::map<int, uint64> priors_;
  std::optional<pg::KeptStatement> find_;           // the rows of the target that redis_names names
  std::optional<pg::KeptStatement> find_elements_;  // the same by all key columns
  std::optional<pg::KeptStatement> find_left_;      // those of redis_gone that redis_rows lacks
  std::unique_ptr<DeleteStatements> delete_;
};

}  // namespace prm
