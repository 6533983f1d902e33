#include "expiry/sweep.h"

#include "expiry/partitions.h"
#include "expiry/predicate.h"
#include "pg/memory.h"
#include "pg/own_write.h"
#include "pg/transaction.h"

namespace prm::expiry {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

namespace {

// WAL that a batch aims to write at most, in bytes, while nobody else works and beside others. Whoever
// commits has to wait until what others have written before is flushed: in `make bench-expiry` a touch beside
// batches of 100 ms, which after a checkpoint write 15 MB, took 14 times as long as alone.
constexpr int kMostWal = 2048 * 1024;
constexpr int kMostWalBesideOthers = 128 * 1024;
constexpr int64 kOthersCheckMs = 50;

// Costs of a sweep in each order, in microseconds, from `make bench-expiry`: a row found through the index,
// a page read in turn, and a row in such a page that has not expired.
constexpr double kIndexRowCost = 4.0;
constexpr double kPageCost = 10.0;
constexpr double kPageRowCost = 0.1;

// How many batches skip locked rows after one met a lock that lasted.
constexpr int kCarefulBatches = 16;
constexpr int64 kPauseCheckMs = 1000;

}  // namespace

void ChoosePlan(pg::LocalSettings &settings, Order order) {
  settings.Set("enable_seqscan", "off");
  settings.Set("enable_bitmapscan", "off");
  settings.Set("enable_sort", "off");
  if (order == Order::kPages) {
    settings.Set("enable_indexscan", "off");
    settings.Set("enable_indexonlyscan", "off");
  }
}

SqlParam TidOf(int64 page) {
  auto *tid = static_cast<ItemPointer>(pg::Call([] { return palloc(sizeof(ItemPointerData)); }));
  ItemPointerSet(tid, static_cast<BlockNumber>(page), 0);
  return SqlParam::Owned(TIDOID, PointerGetDatum(tid));
}

namespace {

void Commit() {
  GiveWay();
  Spi::Commit();
  pg::Call([] { CHECK_FOR_INTERRUPTS(); });
}

}  // namespace

Step Sweep::Next() {
  pg::OwnWrite const own_write(pg::OwnWrite::Of::kSweep);
  if (stuck_.TooMany())
    throw Failure(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                  std::to_string(StuckRows::kMost) + " expired rows of table " + policy_.name +
                      " could not be removed, and the sweep gave up",
                  "The last: " + stuck_.last_problem(),
                  "SELECT * FROM redis_migrate.stuck_rows shows why. The sweep goes on where it stopped.");
  begin_ = GetCurrentTimestamp();
  wal_before_ = pgWalUsage.wal_bytes;
  if (run_.started == 0) run_.started = begin_;
  pg::Context context("redis_migrate sweep");
  pg::SwitchContext in_context(context.get());
  // A batch that a crash loses takes its position with it, and is done again: no standby has to be waited
  // for.
  if (synchronous_commit > SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
    Spi::Execute("SET LOCAL synchronous_commit = local");
  // A deferred constraint is to fail with its batch, not with the commit.
  Spi::Execute("SET CONSTRAINTS ALL IMMEDIATE");
  Step step = Step::kMore;
  hasty_ = removing_ = false;
  try {
    pg::InSubtransaction([&] { step = Batch(); });
  } catch (const pg::UnconfirmedRelation &error) {
    run_.problem = error.message() + ". " + error.hint();
    throw;
  } catch (const pg::PgError &error) {
    bool const transient = pg::IsTransient(error.sqlstate());
    bool const of_rows =
        removing_ && (transient ? !hasty_ : pg::FaultOf(error.sqlstate()) != pg::Fault::kServer);
    if (of_rows)
      divided_batches_ = kDividedBatches;
    else if (error.sqlstate() == ERRCODE_INSUFFICIENT_PRIVILEGE)
      throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, error.what(),
                    "The sweep of " + policy_.name + " runs with the rights of the policy's owner.",
                    "It needs SELECT and UPDATE, and DELETE unless soft_delete is set.");
    else if (!transient)
      throw;
    else if (hasty_)
      careful_batches_ = kCarefulBatches;
    else {
      // With fewer rows it does not matter whose lock it was.
      pg::AsExtensionOwner as_owner;
      Spi::Execute(
          R"sql(UPDATE redis_migrate.expiry_state
                SET batch_rows = greatest(batch_rows / 2, 1), batch_pages = greatest(batch_pages / 2, 1)
                WHERE job_id = (
                    SELECT job_id
                    FROM redis_migrate.expiry_state
                    WHERE job_id = $1 FOR UPDATE SKIP LOCKED))sql",
          {SqlParam::Int8(job_id_)});
      step = Step::kBlocked;
      run_.message = error.what();
    }
  }
  // A crash may lose the record of a sweep that found nothing: it is due again then.
  if (step == Step::kDone && !run_.worked) Spi::Execute("SET LOCAL synchronous_commit = off");
  Commit();
  return step;
}

void Sweep::Fail(const pg::Problem &problem) {
  run_.sqlstate = problem.sqlstate;
  run_.message = problem.message;
  RecordRun(job_id_, run_);
  Commit();
}

// Whether something is in the way of this policy. Checks once a second, and only if there is something to
// remove: most sweeps find nothing.
bool Sweep::Pause() {
  TimestampTz const now = GetCurrentTimestamp();
  if (pause_checked_ != 0 && now - pause_checked_ < kPauseCheckMs * 1000 && now >= pause_checked_ &&
      state_.pause_reason.empty())
    return false;
  pause_checked_ = now;
  std::string const before = state_.pause_reason;
  state_.pause_reason = PauseReason(policy_);
  if (state_.pause_reason.empty()) {
    if (!before.empty()) SaveState(job_id_, state_, 0, false);
    return false;
  }
  SaveState(job_id_, state_, 0, false);
  return true;
}

// If others have begun to work, this batch is already small.
void Sweep::LookForOthers() {
  if (others_checked_ != 0 && begin_ - others_checked_ < kOthersCheckMs * 1000 && begin_ >= others_checked_)
    return;
  others_checked_ = begin_;
  bool const before = std::exchange(beside_others_, OthersAtWork());
  if (before || !beside_others_) return;
  constexpr int kShare = kMostWal / kMostWalBesideOthers;
  state_.batch_rows = std::max(state_.batch_rows / kShare, 1);
  state_.batch_pages = std::max(state_.batch_pages / kShare, 1);
}

Step Sweep::Batch() {
  // Nobody's DDL waits long for a sweep, neither behind its batch nor behind its waiting; and no other table
  // waits for a policy that an open transaction changes.
  pg::LocalSettings patience;
  patience.Set("lock_timeout", "200ms");
  LoadPolicy(job_id_, true, policy_, state_);
  if (scheduled_ && !policy_.due) return Step::kDone;
  PolicySettings settings(policy_);
  Target const target = ResolveTarget(policy_);
  if (target.changed) StoreAccepted(job_id_, *target.changed);
  CheckCode(policy_, target.kind);
  if (target.attnum != policy_.known_attnum) {
    pg::AsExtensionOwner as_owner;
    Spi::Execute("UPDATE redis_migrate.expiry_policy SET expires_attnum = $2 WHERE job_id = $1",
                 {SqlParam::Int8(job_id_), SqlParam::Int4(target.attnum)});
  }
  bool stale = !state_.pause_reason.empty();
  if (state_.started == 0) {
    stale = stale || state_.backlog.value_or(0) != 0 || state_.oldest;
    state_.started = begin_;
    state_.leaf.clear();
    state_.order = Order::kNone;
    state_.rows = state_.batches = 0;
    state_.backlog.reset();
    state_.oldest.reset();
  }
  Leaves const leaves = FindLeaves(target.relation);
  for (const auto &[name, leaf] : leaves.tables) {
    if (name < state_.leaf || (name == state_.leaf && state_.order == Order::kNone)) continue;
    if (name != state_.leaf) {
      state_.leaf = name;
      leaf_skipped_ = 0;
      state_.order = Order::kNone;  // with the name of a table: it is done
    }
    Oid const table = leaf;
    pg::Call([&] { LockRelationOid(table, AccessShareLock); });
    if (QualifiedName(leaf) != name) return Step::kMore;  // renamed a moment ago
    Statements const statements(policy_, target.kind, name);
    Cutoff const cutoff(policy_, target.kind, begin_);
    if (stuck_.Load(name, leaves.tables, state_.has_stuck_rows, statements, cutoff)) return Step::kMore;
    if (ShouldDrop(leaf, target, statements, cutoff)) {
      if (Pause()) return Step::kPaused;
      if (TryToDrop(name)) {
        ++state_.partitions_dropped;
        ++partitions_dropped_;
        state_.order = Order::kNone;
        SaveState(job_id_, state_, 0, true);
        return Step::kMore;
      }
    }
    if (state_.order == Order::kNone && !ChooseOrder(target, leaf, statements, cutoff)) continue;
    if (Pause()) return Step::kPaused;
    LookForOthers();
    TakeExpiredRowsMet();
    GiveWay();
    bool const due = stuck_.AnyDue();
    int64 const watermark = state_.watermark;
    Removed const removed = due                             ? DueBatch(leaf, statements, cutoff)
                            : divided_batches_ > 0          ? DividedBatch(leaf, statements, cutoff)
                            : state_.order == Order::kIndex ? IndexBatch(statements, cutoff)
                                                            : PageBatch(leaf, statements, cutoff);
    GiveWay();
    last_order_ = state_.order;
    state_.rows += removed.rows;
    ++state_.batches;
    run_.rows += removed.rows;
    ++run_.batches;
    if (removed.rows > 0) run_.worked = true;
    int64 const locked = std::max<int64>(removed.met - removed.rows, 0);
    NoteSkipped(locked);
    if (state_.backlog) state_.backlog = std::max<int64>(*state_.backlog - removed.rows, 0);
    ceiling_.Spend(removed.rows, policy_.max_rate, begin_);
    if (removed.leaf_done) {
      state_.order = Order::kNone;
      if (name == leaves.tables.back().first) {
        Finish();
        SaveState(job_id_, state_, removed.rows, true);
        return Step::kDone;
      }
    } else if (state_.order == Order::kIndex && !due) {
      // Rows of one time that a trigger or row security keeps, without an error, would be met for ever.
      if (removed.rows == 0 && removed.kept == 0 && state_.watermark == watermark)
        ReadPages(leaf, Estimated());
      else
        PreferPages(leaf, statements, cutoff);
    }
    SaveState(job_id_, state_, removed.rows, true);
    return TakeBlocked() ? Step::kBlocked : Step::kMore;
  }
  stale = stale || state_.batches > 0 || partitions_dropped_ > 0;
  Finish();
  if (stale) SaveState(job_id_, state_, 0, false);
  return Step::kDone;
}

// Whether all rows of a partition have expired, by its bounds.
bool Sweep::ShouldDrop(Oid leaf, const Target &target, const Statements &statements, const Cutoff &cutoff) {
  return policy_.drop_partitions && leaf != target.relation && stuck_.MayDropTable() && !HidesRows(leaf) &&
         BoundsHaveExpired(statements, cutoff);
}

// If a partition cannot be dropped, its rows are removed like those of any other.
bool Sweep::TryToDrop(const std::string &name) {
  run_.worked = true;
  try {
    pg::InSubtransaction([&] { DropPartition(name); });
    if (state_.has_stuck_rows) stuck_.ForgetTable();
    return true;
  } catch (const pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    stuck_.KeepTable({error.sqlstate(), error.what()});
  }
  return false;
}

// Only rows that others had locked, or that cannot be removed, are left.
void Sweep::Finish() {
  state_.started = 0;
  state_.leaf.clear();
  state_.order = Order::kNone;
  state_.backlog = skipped_ + stuck_.size();
  if (*state_.backlog == 0) state_.oldest.reset();
  state_.pause_reason.clear();
  run_.message = partitions_dropped_ > 0 ? std::to_string(partitions_dropped_) + " partitions dropped" : "";
  if (stuck_.failed() > 0)
    run_.message += (run_.message.empty() ? "" : "; ") + std::to_string(stuck_.failed()) +
                    " rows or partitions could not be removed, the last: " + stuck_.last_problem();
  RecordRun(job_id_, run_);
}

// The order in which a table is swept; false when nothing in it has expired.
bool Sweep::ChooseOrder(const Target &target, Oid leaf, const Statements &statements, const Cutoff &cutoff) {
  const std::string &column = policy_.expires_column;
  int attnum = pg::Call([&] { return get_attnum(leaf, column.c_str()); });
  if (HasIndexOn(leaf, attnum)) {
    pg::LocalSettings settings;
    ChoosePlan(settings, Order::kIndex);
    std::optional<int64> value;
    auto find = [&](const std::string &statement, const std::vector<SqlParam> &params) {
      auto rows = Spi::Execute(statement, params);
      if (rows.size() > 0) value = rows[0].Int8(0);
    };
    std::vector<SqlParam> params = {cutoff.param()};
    std::vector<ItemPointerData> const left_out = stuck_.ExpiringFrom(PG_INT64_MIN);
    bool const but_some = statements.has_condition() && !left_out.empty();
    if (but_some) params.push_back(SqlParam::TidArray(left_out));
    if (!WithCondition(statements, cutoff, [&] { find(statements.Oldest(but_some), params); }))
      find(statements.ByTime().Oldest(false), {cutoff.param()});
    if (!value) return false;
    TimestampTz const oldest = ExpiresAt(policy_, target.kind, *value);
    if (!state_.oldest || oldest < *state_.oldest) state_.oldest = oldest;
    state_.order = Order::kIndex;
    state_.watermark = *value;
    return true;
  }
  ReadPages(leaf, Estimate(leaf, statements, cutoff));
  return state_.end_page > 0;
}

void Sweep::NoteSkipped(int64 rows) {
  state_.skipped += rows;
  skipped_ += rows;
  leaf_skipped_ += rows;
}

void Sweep::ReadPages(Oid leaf, const Estimated &estimated) {
  NoteSkipped(-leaf_skipped_);  // they will be met again
  if (policy_.max_rate > 0 && estimated.expired > 0)
    state_.batch_pages = std::clamp(static_cast<int>(policy_.max_rate * estimated.pages / estimated.expired),
                                    1, state_.batch_pages);
  state_.order = Order::kPages;
  state_.next_page = 0;
  state_.end_page = Pages(leaf);
}

// Estimates a table from a sample of its pages.
Sweep::Estimated Sweep::Estimate(Oid leaf, const Statements &statements, const Cutoff &cutoff) {
  sampled_leaf_ = state_.leaf;
  Estimated estimated;
  estimated.pages = Pages(leaf);
  double const share = SampleShare(estimated.pages);
  auto sample = [&](const std::string &statement) {
    auto rows = Spi::Execute(statement, {cutoff.param(), SamplePercent(share)});
    estimated.rows = static_cast<double>(rows[0].Int8(0)) / share;
    estimated.expired = static_cast<double>(rows[0].Int8(1)) / share;
  };
  if (!WithCondition(statements, cutoff, [&] { sample(statements.Sample()); }))
    sample(statements.ByTime().Sample());
  state_.backlog = static_cast<int64>(estimated.expired);
  return estimated;
}

// After a full batch: whether reading every page is cheaper than finding each row through the index.
void Sweep::PreferPages(Oid leaf, const Statements &statements, const Cutoff &cutoff) {
  if (sampled_leaf_ == state_.leaf) return;
  Estimated const estimated = Estimate(leaf, statements, cutoff);
  if (estimated.expired * kIndexRowCost > estimated.pages * kPageCost + estimated.rows * kPageRowCost)
    ReadPages(leaf, estimated);
}

// Milliseconds that the batch has taken, or would have at the rate at which it may write WAL.
double Sweep::SpentMs() const {
  double const elapsed = static_cast<double>(GetCurrentTimestamp() - begin_) / 1000.0;
  double const wal = static_cast<double>(pgWalUsage.wal_bytes - wal_before_);
  return std::max(elapsed, policy_.batch_ms * wal / (beside_others_ ? kMostWalBesideOthers : kMostWal));
}

int Sweep::BatchRows() const {
  return policy_.max_rate > 0 ? std::min(state_.batch_rows, policy_.max_rate) : state_.batch_rows;
}

Sweep::Removed Sweep::IndexBatch(const Statements &statements, const Cutoff &cutoff) {
  pg::LocalSettings settings;
  ChoosePlan(settings, Order::kIndex);
  int const size = BatchRows();
  std::vector<SqlParam> params = {cutoff.param(), cutoff.ParamOf(state_.watermark), SqlParam::Int4(size)};
  std::vector<ItemPointerData> const left_out = stuck_.ExpiringFrom(state_.watermark);
  if (!left_out.empty()) params.push_back(SqlParam::TidArray(left_out));
  removing_ = true;
  auto rows = Spi::Execute(statements.IndexBatch(!left_out.empty()), params);
  removing_ = false;
  Removed removed;
  int64 const locked = rows[0].Int8(0);
  if (!rows[0].IsNull(1)) state_.watermark = rows[0].Int8(1);
  removed.rows = rows[0].Int8(2);
  removed.met = removed.rows + std::max<int64>(TakeExpiredRowsMet() - locked, 0);
  removed.leaf_done = locked < size;
  NoteRemoved(rows[0], 2, removed.rows);
  if (!removed.leaf_done) state_.batch_rows = AdaptSize(size, SpentMs(), policy_.batch_ms, kMostRows);
  return removed;
}

Sweep::Removed Sweep::PageBatch(Oid leaf, const Statements &statements, const Cutoff &cutoff) {
  pg::LocalSettings settings;
  ChoosePlan(settings, Order::kPages);
  int64 const end = std::min(state_.next_page + state_.batch_pages, state_.end_page);
  bool const careful = careful_batches_ > 0;
  if (!careful) {
    // The lock of the table may be waited for as long as any; that of a row, only so long that a short
    // transaction can end.
    pg::Call([&] { LockRelationOid(leaf, RowExclusiveLock); });
    settings.Set("lock_timeout", "20ms");
    hasty_ = true;
  }
  std::vector<SqlParam> params = {cutoff.param(), TidOf(state_.next_page), TidOf(end)};
  std::vector<ItemPointerData> const left_out = stuck_.InPages(state_.next_page, end);
  if (!left_out.empty()) params.push_back(SqlParam::TidArray(left_out));
  removing_ = true;
  auto rows = Spi::Execute(statements.PageBatch(careful, !left_out.empty()), params);
  removing_ = false;
  if (careful) --careful_batches_;
  Removed removed;
  removed.rows = statements.returns() ? rows[0].Int8(0) : static_cast<int64>(rows.processed());
  removed.met = careful ? TakeExpiredRowsMet() : removed.rows;
  state_.next_page = end;
  removed.leaf_done = end >= state_.end_page;
  NoteRemoved(statements.returns() ? std::optional<pg::Row>(rows[0]) : std::nullopt, 0, removed.rows);
  double spent = SpentMs();
  // More than a second's worth of rows is too long a batch as well.
  if (policy_.max_rate > 0)
    spent = std::max(spent, policy_.batch_ms * static_cast<double>(removed.rows) / policy_.max_rate);
  state_.batch_pages = AdaptSize(state_.batch_pages, spent, policy_.batch_ms, kMostPages);
  return removed;
}

namespace {

// {"table": …, "rows": …, "keys": […]}, within what NOTIFY takes (less than 8000 bytes).
std::string Payload(const Policy &policy, int64 rows, const std::vector<std::string> &keys) {
  constexpr size_t kMost = 7500;
  auto quoted = [](const std::string &text) {
    return std::string(pg::Call([&] {
      StringInfoData json;
      initStringInfo(&json);
      escape_json(&json, text.c_str());
      return static_cast<const char *>(json.data);
    }));
  };
  std::string payload = "{\"table\": " + quoted(policy.name) + ", \"rows\": " + std::to_string(rows);
  if (!policy.notify_column.empty()) {
    payload += ", \"keys\": [";
    size_t written = 0;
    for (const std::string &key : keys) {
      std::string const item = (written > 0 ? ", " : "") + quoted(key);
      if (payload.size() + item.size() > kMost) break;
      payload += item;
      ++written;
    }
    payload += std::string("]") + (static_cast<int64>(written) < rows ? ", \"more\": true" : "");
  }
  return payload + "}";
}

}  // namespace

void Sweep::NoteRemoved(const std::optional<pg::Row> &row, int column, int64 rows) {
  if (row && !row->IsNull(column + 1) && row->Bool(column + 1))
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                  "soft_delete leaves rows of table " + policy_.name + " as expired as before",
                  "The next sweep would update them again.",
                  "Add a condition that they no longer meet, such as condition => 'deleted_at IS NULL'.");
  if (policy_.notify_channel.empty() || rows == 0) return;
  Spi::Execute("SELECT pg_catalog.pg_notify($1, $2)",
               {SqlParam::Text(policy_.notify_channel),
                SqlParam::Text(
                    Payload(policy_, rows, row ? row->TextArray(column + 2) : std::vector<std::string>()))});
}

}  // namespace prm::expiry
