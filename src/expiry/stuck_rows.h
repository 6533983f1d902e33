// Expired rows that a sweep could not remove: which they are, why, and when each is tried again.
#pragma once

#include "expiry/predicate.h"
#include "pg/pg.h"

namespace prm::expiry {

// A version of a row. Whatever becomes of the row, no other has the same tid and xmin.
struct RowVersion {
  ItemPointerData tid;
  TransactionId xmin;
  int64 expires;  // the value of the expiry column
};

// Those of one policy, in redis_migrate.stuck_row, and in memory those of the table that is being swept.
// Read and written as the extension's owner, in the transaction of a batch.
class StuckRows {
 public:
  // The number of rows kept for a policy. A sweep gives up when it has met so many that were not known.
  static constexpr int64 kMost = 20000;

  explicit StuckRows(int64 job_id) : job_id_(job_id) {}

  // Reads those of `table`, one of `tables`, and forgets what is no longer there as it was: whether there was
  // something to forget, which must be committed before anything is tried that may be rolled back. `any`:
  // whether there can be some; where not, nothing is read. Later calls for the same table do nothing.
  bool Load(const std::string &table, const std::vector<std::pair<std::string, Oid>> &tables, bool any,
            const Statements &statements, const Cutoff &cutoff);

  // Those that a batch must leave out: that expire from a value on, or stand in a range of pages.
  std::vector<ItemPointerData> ExpiringFrom(int64 value) const;
  std::vector<ItemPointerData> InPages(int64 begin, int64 end) const;

  // Takes rows whose time for another try has come.
  bool AnyDue() const { return !due_.empty(); }
  std::vector<ItemPointerData> TakeDue(size_t most);
  void GiveBackDue(const ItemPointerData &tid) { due_.push_back(tid); }

  // With which the rows of the tables that were read have failed before.
  const std::set<int> &sqlstates() const { return sqlstates_; }

  // Keeps a row that could not be removed, to be tried again an hour after its first failure, two hours after
  // the second and so on, at most a day. `where` is the table's OID, whose primary key names the row.
  void Keep(const RowVersion &row, const pg::Problem &problem, Oid where, const Statements &statements);
  // Leaves a row out for the rest of this sweep.
  void PassOver(const RowVersion &row) { left_out_.push_back(row); }
  void Forget(const std::vector<ItemPointerData> &tids);

  // As Keep, for a partition that could not be dropped.
  bool MayDropTable() const { return may_drop_table_; }
  void KeepTable(const pg::Problem &problem);
  void ForgetTable();

  int64 size() const { return size_; }      // of all tables of the policy
  int64 failed() const { return failed_; }  // tries of this sweep
  bool TooMany() const { return unknown_ >= kMost; }
  // "23503: update or delete on table …", of the last try that failed.
  const std::string &last_problem() const { return last_problem_; }

 private:
  void Insert(const ItemPointerData &tid, TransactionId xmin, const std::string &key,
              const pg::Problem &problem);

  int64 job_id_;
  std::string table_;
  std::vector<RowVersion> left_out_;
  std::vector<ItemPointerData> due_;
  std::set<int> sqlstates_;
  bool may_drop_table_ = true;
  bool counted_ = false;
  int64 size_ = 0;
  int64 failed_ = 0;
  int64 unknown_ = 0;
  std::string last_problem_;
  std::optional<std::vector<std::string>> key_columns_;
};

}  // namespace prm::expiry
