// The sweep of one policy, batch by batch.
#pragma once

#include "expiry/job.h"
#include "expiry/pace.h"
#include "expiry/policy.h"
#include "expiry/relation.h"
#include "expiry/stuck_rows.h"

#include <functional>

namespace prm::expiry {

// A batch can read many pages that hold nothing expired; the next page may be full of expired rows.
constexpr int kMostRows = 100000;
constexpr int kMostPages = 2048;

// The plans that the two orders are made for, whatever the statistics say.
void ChoosePlan(pg::LocalSettings &settings, Order order);
// The place before the first row of a page.
pg::SqlParam TidOf(int64 page);

enum class Step {
  kMore,     // a batch was done, there is more
  kDone,     // the table has been swept
  kPaused,   // pause_reason() says why
  kBlocked,  // a lock was in the way, or another transaction
};

// Holds the job's lock while it lives. What was done is kept in expiry_state, so that any session goes on
// with it.
class Sweep {
 public:
  // `scheduled`: ends at once where the policy is not due, or paused.
  Sweep(int64 job_id, bool scheduled)
      : lock_(job_id), job_id_(job_id), scheduled_(scheduled), stuck_(job_id) {}

  // Whether nobody else sweeps this table.
  bool held() const { return lock_.held(); }

  // Does one batch and commits it. Rows that cannot be removed are kept in the list of stuck rows. Needs a
  // nonatomic SPI connection. What expires is decided by the clock as the batch begins. Errors are those of
  // the policy (ResolveTarget) and of its table, and 54000 for too many rows that cannot be removed; after
  // one the transaction goes on, and Fail records it.
  Step Next();
  void Fail(const pg::Problem &problem);

  int64 job_id() const { return job_id_; }
  int64 WaitMs() const { return ceiling_.WaitMs(); }
  const std::string &name() const { return policy_.name; }
  const std::string &pause_reason() const { return state_.pause_reason; }
  const JobRun &run() const { return run_; }
  int64 skipped() const { return skipped_; }
  const StuckRows &stuck() const { return stuck_; }
  Order order() const { return last_order_; }
  int64 partitions_dropped() const { return partitions_dropped_; }

 private:
  struct Removed {
    int64 rows = 0;
    int64 met = 0;   // expired rows, locked by others or not
    int64 kept = 0;  // that could not be removed, and are left out from now on
    bool leaf_done = false;
  };

  struct Estimated {
    double pages = 0;
    double rows = 0;
    double expired = 0;
  };

  struct Try {
    int64 removed = 0;
    std::optional<pg::PgError> error;
  };

  struct Divided {
    size_t done = 0;
    int64 removed = 0;
    int64 kept = 0;
    int64 passed_over = 0;
    std::set<size_t> failed;  // kept or passed over
  };

  // Rows of a batch that are locked and expired.
  struct Selected {
    std::vector<RowVersion> rows;
    size_t looked_at = 0;  // rows, these and others
    int64 kept = 0;        // others, for which the condition fails
    bool ended = true;     // there are no more in the range
    int64 expires = 0;     // where not locked at once: the value up to which rows were looked at
    int64 left_page = 0;   // and the page to go on with, if the range has more
  };

  // Rows looked at by name: those that meet the condition.
  struct Judged {
    std::vector<RowVersion> expired;
    size_t done = 0;
    std::set<size_t> failed;  // kept, as the condition fails for them
  };

  using SqlStateOf = std::function<int(const std::vector<ItemPointerData> &)>;

  // How many batches are locked and divided from the start after one with a row that could not be removed.
  static constexpr int kDividedBatches = 16;

  Step Batch();
  bool ShouldDrop(Oid leaf, const Target &target, const Statements &statements, const Cutoff &cutoff);
  bool TryToDrop(const std::string &name);
  int BatchRows() const;
  bool Pause();
  void LookForOthers();
  bool ChooseOrder(const Target &target, Oid leaf, const Statements &statements, const Cutoff &cutoff);
  void PreferPages(Oid leaf, const Statements &statements, const Cutoff &cutoff);
  void ReadPages(Oid leaf, const Estimated &estimated);
  void NoteSkipped(int64 rows);
  Estimated Estimate(Oid leaf, const Statements &statements, const Cutoff &cutoff);
  double SpentMs() const;
  Removed IndexBatch(const Statements &statements, const Cutoff &cutoff);
  Removed PageBatch(Oid leaf, const Statements &statements, const Cutoff &cutoff);
  Removed DividedBatch(Oid leaf, const Statements &statements, const Cutoff &cutoff);
  Removed DueBatch(Oid leaf, const Statements &statements, const Cutoff &cutoff);
  Divided Divide(const std::vector<RowVersion> &rows, Oid leaf, const Statements &statements,
                 const Cutoff &cutoff);
  Try TryRows(const std::vector<ItemPointerData> &tids, bool keep, const Statements &statements,
              const Cutoff &cutoff);
  void RequireFaultOfRows(const pg::PgError &error, const std::vector<RowVersion> &rows, size_t begin,
                          const SqlStateOf &sqlstate_of);
  bool WithCondition(const Statements &statements, const Cutoff &cutoff, const std::function<void()> &body);
  Judged Judge(const std::vector<RowVersion> &rows, bool in_order, Oid leaf, const Statements &statements,
               const Cutoff &cutoff);
  std::vector<RowVersion> LockJudged(const Judged &judged, bool in_order, const Statements &statements,
                                     const Cutoff &cutoff, int64 &passed_over);
  Selected Select(bool in_order, const std::vector<pg::SqlParam> &params, size_t most, Oid leaf,
                  const Statements &statements, const Cutoff &cutoff);
  bool TakeBlocked();
  void NoteRemoved(const std::optional<pg::Row> &row, int column, int64 rows);
  void Finish();

  JobLock lock_;
  int64 job_id_;
  bool scheduled_;
  Policy policy_;
  State state_;
  JobRun run_;
  RateCeiling ceiling_;
  TimestampTz begin_ = 0;  // of the batch
  uint64 wal_before_ = 0;  // bytes of WAL that this process had written then
  TimestampTz pause_checked_ = 0;
  TimestampTz others_checked_ = 0;
  bool beside_others_ = false;
  bool hasty_ = false;       // the batch under way waits for rows, briefly
  int careful_batches_ = 0;  // that skip locked rows
  StuckRows stuck_;
  bool removing_ = false;    // the batch under way removes rows, all at once
  int divided_batches_ = 0;  // that divide from the start
  bool judges_ = false;      // they look at each row's condition by itself
  int blocked_rows_ = 0;     // in a row, that waited in vain for a lock of something else
  std::set<int> of_rows_;    // SQLSTATEs that cost a row each
  int64 skipped_ = 0;        // expired rows that others had locked
  int64 leaf_skipped_ = 0;
  int64 partitions_dropped_ = 0;
  std::string sampled_leaf_;
  Order last_order_ = Order::kNone;
};

}  // namespace prm::expiry
