// The journal of a run or live session: the earlier image of each row that it changed or deleted, kept in the
// transaction that does so. CALL redis_migrate.undo_run reads it.
#pragma once

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
  // inserted are noted, too, because no packed ledger does, or because they may be those that the session has
  // deleted.
  void Begin(std::optional<int64> run, bool with_inserts) {
    run_ = run;
    with_inserts_ = with_inserts;
  }
  bool keeps() const { return run_ && mapping_.journal && may_read_; }
  bool keeps_inserts() const { return keeps() && (with_inserts_ || has_deleted_); }

  // Runs `change`, and keeps the earlier images of rows that are not as before afterwards. The rows of the
  // target, called target, are those that fulfil the condition together with `relations`; "" for none. Needs
  // SPI; `change` must do its work in the current subtransaction. Errors: its own, those of the condition,
  // 54000 for a row whose texts exceed 1 GB.
  void Around(const std::string &relations, const std::string &condition,
              pg::KeptStatement::Planning planning, const std::function<void()> &change);

  // Notes rows of the target as inserted; they are described as above.
  void NoteInserted(const std::string &relations, const std::string &condition,
                    pg::KeptStatement::Planning planning);

  // Deletes what is older than pg_redis_migrate.journal_retention, of all migrations.
  static void DeleteExpired();

 private:
  pg::KeptStatement &Select(const std::string &relations, const std::string &condition,
                            pg::KeptStatement::Planning planning);
  std::string IsSmall(int bytes) const;
  void Save(TupleDesc desc, pg::Tuplestore &rows, bool were_there);

  const Mapping &mapping_;
  const Target &target_;
  std::vector<const TargetColumn *> columns_;  // the key columns first
  bool may_read_;
  bool may_lock_;
  std::optional<int64> run_;
  bool with_inserts_ = false;
  bool has_deleted_ = false;  // rows that may be inserted again
  std::map<std::string, pg::KeptStatement> selects_;
  std::optional<pg::KeptStatement> after_;
  pg::KeptStatement save_;
};

// The columns of a target that a statement can set, the key columns first.
std::vector<const TargetColumn *> JournalColumns(const Target &target);

// "target.a, target.b"
std::string ColumnList(const std::vector<const TargetColumn *> &columns, const std::string &alias);

}  // namespace prm
