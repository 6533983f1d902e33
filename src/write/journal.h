// The journal of a run or live session: the earlier values of each row that it changed or deleted, kept in
// the transaction that does so. CALL redis_migrate.undo_run reads it.
#pragma once

#include "core/journal_block.h"
#include "mapping/catalog.h"
#include "mapping/target.h"
#include "pg/kept_statement.h"
#include "write/row_texts.h"

namespace prm {

class Journal {
 public:
  // `mapping` and `target` must outlive the journal. Needs SPI.
  Journal(const Mapping &mapping, const Target &target);

  // The run that changes rows from now on; nothing: their images are not kept. with_inserts: rows that are
  // inserted are noted, too, because nobody else does, or because they may be those that the run has deleted,
  // and the order counts. Needs SPI.
  void Begin(std::optional<int64> run, bool with_inserts);
  bool keeps() const { return run_ && mapping_.journal && may_read_; }
  bool keeps_inserts() const { return keeps() && (with_inserts_ || has_deleted_); }

  // The columns of the target that are kept, the key columns first.
  const std::vector<const TargetColumn *> &columns() const { return columns_; }
  // These columns of a row before a change, redis_found, and the same afterwards. For a scope of memory.
  TupleDesc changes_desc() const;
  // "target.a, target.b": these columns.
  std::string List(const std::string &alias) const;

  // Keeps rows with the descriptor changes_desc.
  void NoteChanged(pg::Tuplestore &changes);
  // Notes rows as inserted, which have columns() as RETURNING gives them; or which have the descriptor of
  // MappingQuery, fill these columns, and leave the others NULL.
  void NoteInserted(pg::Tuplestore &rows);
  void NoteInserted(pg::Tuplestore &rows, TupleDesc desc, const std::vector<const TargetColumn *> &filled);

  // Notes the rows of the target, called target, that fulfil the condition together with `relations`. Needs
  // SPI.
  void NoteInserted(const std::string &relations, const std::string &condition,
                    pg::KeptStatement::Planning planning);

  // Runs `change`, and keeps the earlier images of rows that are not as before afterwards. The rows of the
  // target, called target, are those that fulfil the condition together with `relations`; "" for none. Needs
  // SPI; `change` must do its work in the current subtransaction. Errors: its own, those of the condition.
  void Around(const std::string &relations, const std::string &condition,
              pg::KeptStatement::Planning planning, const std::function<void()> &change);
  // Journals in the same way a statement that deletes the rows and returns how many it has deleted.
  void AroundDelete(const std::string &relations, const std::string &condition,
                    pg::KeptStatement::Planning planning, const std::function<int64()> &remove);

  // Deletes what is older than pg_redis_migrate.journal_retention, of all migrations, unless an undo that has
  // begun needs it.
  static void DeleteExpired();

 private:
  // The attributes of a tuplestore's rows that hold the columns, from 0; -1: the column is NULL.
  struct Places {
    std::vector<int> earlier;  // empty: there was no such row
    std::vector<int> later;    // empty: it was deleted
    int found = -1;            // false in it: it was deleted; -1: it was not
  };
  pg::KeptStatement &Select(const std::string &relations, const std::string &condition,
                            pg::KeptStatement::Planning planning);
  bool HasDeleted() const;
  void NoteAfterwards(pg::Tuplestore &before);
  std::vector<int> InOrder(int first) const;
  void Save(pg::Tuplestore &rows, TupleDesc desc, const Places &places);
  void Flush(JournalBlock &block, const SipKey &salt, bool deletes);

  const Mapping &mapping_;
  const Target &target_;
  std::vector<const TargetColumn *> columns_;
  bool may_read_;
  bool may_lock_;
  std::optional<int64> run_;
  bool with_inserts_ = false;
  bool has_deleted_ = false;  // rows that may be inserted again
  std::map<std::string, pg::KeptStatement> selects_;
  std::optional<pg::KeptStatement> after_;
};

// The columns of a target that a statement can set, the key columns first.
std::vector<const TargetColumn *> JournalColumns(const Target &target);

// "target.a, target.b"
std::string ColumnList(const std::vector<const TargetColumn *> &columns, const std::string &alias);

}  // namespace prm
