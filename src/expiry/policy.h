// Expiry policies and the progress of their sweeps, as the extension's tables have them.
#pragma once

#include "pg/identity.h"
#include "pg/pg.h"
#include "pg/relation_trust.h"

namespace prm::expiry {

// The content of the expiry column.
enum class ColumnKind { kTimestamptz, kTimestamp, kSeconds, kMilliseconds };

struct Policy {
  int64 id = 0;
  std::string name;  // of the table: schema-qualified and quoted
  pg::AcceptedRelation accepted;
  std::string expires_column;
  int known_attnum = 0;
  std::string unit;             // seconds, milliseconds; "" for times
  std::string column_timezone;  // of a column without zone
  Interval lifetime;
  Interval grace;
  std::string condition;    // "": none
  std::string soft_delete;  // "": DELETE
  std::string notify_channel;
  std::string notify_column;
  bool drop_partitions = false;
  double batch_ms = 100;
  int max_rate = 0;                  // rows per second; 0: none
  double max_replication_lag_s = 0;  // 0: not looked at
  int max_xmin_age = 0;              // transactions; 0: not looked at
  bool keeps_history = false;        // the policy of the history itself
  std::string settings[4];           // search_path, timezone, datestyle, intervalstyle
  bool due = false;                  // enabled, and its time has come
};

enum class Order { kNone, kIndex, kPages };

struct State {
  TimestampTz started = 0;  // 0: no sweep is under way
  std::string leaf;
  Order order = Order::kNone;
  int64 watermark = 0;
  int64 next_page = 0;
  int64 end_page = 0;
  int batch_rows = 1000;
  int batch_pages = 64;
  int64 rows = 0;     // of this sweep
  int64 batches = 0;  // of this sweep
  std::optional<int64> backlog;
  std::optional<TimestampTz> oldest;
  std::string pause_reason;
  bool has_stuck_rows = false;  // read only
  // Not read, added to the totals when the state is saved.
  int64 skipped = 0;
  int64 partitions_dropped = 0;
};

// Reads a policy and its state. `lock` keeps it from being changed until the end of the transaction, so that
// no batch runs by a definition that is obsolete. Errors: 42704 when it was dropped.
void LoadPolicy(int64 job_id, bool lock, Policy &policy, State &state);

// Writes the state after a batch that removed so many rows; in the batch's transaction.
void SaveState(int64 job_id, const State &state, int64 batch_rows, bool batch);

// The table as it is now.
struct Target {
  Oid relation = InvalidOid;
  int attnum = 0;
  ColumnKind kind = ColumnKind::kTimestamptz;
  std::optional<pg::AcceptedRelation> changed;  // what to store: the table was rebuilt
};

// Resolves the names of a policy, and locks the table with ACCESS SHARE, so that they stay what they are.
// Errors: 42P01 and 42703, which say what the table or column is called now; 42809 for what is no table;
// 42804 for a column that holds no time; 22023 when unit or column_timezone does not fit it; 55000
// (UnconfirmedRelation) for a table that the policy's owner has to confirm.
Target ResolveTarget(const Policy &policy);

// The settings of the session that defined the policy, for a scope.
class PolicySettings {
 public:
  explicit PolicySettings(const Policy &policy);
  void Set(const char *name, const std::string &value) { settings_.Set(name, value); }

 private:
  pg::LocalSettings settings_;
};

}  // namespace prm::expiry
