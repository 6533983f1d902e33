// The sweep of one policy, batch by batch.
#pragma once

#include "expiry/job.h"
#include "expiry/pace.h"
#include "expiry/policy.h"
#include "expiry/relation.h"

namespace prm::expiry {

class Cutoff;
class Statements;

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
  Sweep(int64 job_id, bool scheduled) : lock_(job_id), job_id_(job_id), scheduled_(scheduled) {}

  // Whether nobody else sweeps this table.
  bool held() const { return lock_.held(); }

  // Does one batch and commits it. Needs a nonatomic SPI connection. What expires is decided by the clock as
  // the batch begins. Errors are those of the policy (ResolveTarget) and of its table; after one the
  // transaction goes on, and Fail records it.
  Step Next();
  void Fail(const pg::Problem &problem);

  int64 job_id() const { return job_id_; }
  int64 WaitMs() const { return ceiling_.WaitMs(); }
  const std::string &name() const { return policy_.name; }
  const std::string &pause_reason() const { return state_.pause_reason; }
  const JobRun &run() const { return run_; }
  int64 skipped() const { return skipped_; }
  Order order() const { return last_order_; }
  int64 partitions_dropped() const { return partitions_dropped_; }

 private:
  struct Removed {
    int64 rows = 0;
    int64 met = 0;  // expired rows, locked by others or not
    bool leaf_done = false;
  };

  struct Estimated {
    double pages = 0;
    double rows = 0;
    double expired = 0;
  };

  Step Batch();
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
  int64 skipped_ = 0;        // expired rows that others had locked
  int64 leaf_skipped_ = 0;
  int64 partitions_dropped_ = 0;
  std::string sampled_leaf_;
  Order last_order_ = Order::kNone;
};

}  // namespace prm::expiry
