// Finds the rows of a batch that cannot be removed, so that the others can be.
#include "core/halves.h"
#include "expiry/sweep.h"
#include "pg/identity.h"
#include "pg/transaction.h"

namespace prm::expiry {

using pg::Spi;
using pg::SqlParam;

namespace {

// Room for the subtransactions of the batch and of its locks, and for what triggers open.
constexpr int kMostParts = pg::kMostSubtransactions - 6;
// Rows that are tried again at a time.
constexpr size_t kMostDue = 1000;
// If this many rows in a row wait for locks of others, a table is probably locked.
constexpr int kMostBlockedRows = 25;

std::vector<RowVersion> LockRows(const std::string &statement, const std::vector<SqlParam> &params) {
  auto found = Spi::Execute(statement, params);
  std::vector<RowVersion> rows;
  rows.reserve(found.size());
  for (uint64 i = 0; i < found.size(); ++i)
    rows.push_back({*reinterpret_cast<ItemPointer>(DatumGetPointer(found[i].Value(0))),
                    DatumGetTransactionId(found[i].Value(1)), found[i].Int8(2)});
  return rows;
}

struct ByTid {
  bool operator()(ItemPointerData a, ItemPointerData b) const { return ItemPointerCompare(&a, &b) < 0; }
};

std::vector<ItemPointerData> TidsOf(const std::vector<RowVersion> &rows, size_t begin, size_t end) {
  std::vector<ItemPointerData> tids;
  tids.reserve(end - begin);
  for (size_t i = begin; i < end; ++i) tids.push_back(rows[i].tid);
  return tids;
}

}  // namespace

// Removes rows in a subtransaction, kept or for trial: how many, or the error. Errors of the server are
// thrown.
Sweep::Try Sweep::TryRows(const std::vector<ItemPointerData> &tids, bool keep, const Statements &statements,
                          const Cutoff &cutoff) {
  Try result;
  auto remove = [&] {
    auto rows = Spi::Execute(statements.RemoveNamed(), {cutoff.param(), SqlParam::TidArray(tids)});
    result.removed = statements.returns() ? rows[0].Int8(0) : static_cast<int64>(rows.processed());
    NoteRemoved(statements.returns() ? std::optional<pg::Row>(rows[0]) : std::nullopt, 0, result.removed);
  };
  try {
    if (keep)
      pg::InSubtransaction(remove);
    else
      pg::InRolledBackSubtransaction(remove);
  } catch (const pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer && !pg::IsTransient(error.sqlstate())) throw;
    result.error = error;
  }
  GiveWay();
  return result;
}

// Throws an error that is not to cost rows. `rows` from `begin` on are still there. `sqlstate_of` tries rows
// for that, and returns 0 where they do not fail.
void Sweep::RequireFaultOfRows(const pg::PgError &error, const std::vector<RowVersion> &rows, size_t begin,
                               const SqlStateOf &sqlstate_of) {
  int const sqlstate = error.sqlstate();
  if (pg::IsTransient(sqlstate) || of_rows_.count(sqlstate) > 0) return;
  auto fails = [&](const std::vector<ItemPointerData> &tids) { return sqlstate_of(tids) == sqlstate; };
  // Fewer than three rows prove nothing, unless others have been removed.
  auto fails_for_any_row = [&] {
    std::set<size_t> const sample = {begin, begin + (rows.size() - begin) / 2, rows.size() - 1};
    for (size_t row : sample)
      if (!fails({rows[row].tid})) return false;
    return sample.size() == 3 || run_.rows == 0;
  };
  if (!pg::CostsRows(
          sqlstate, [&] { return fails({}); }, fails_for_any_row))
    throw error;
  of_rows_.insert(sqlstate);
}

// Runs statements that evaluate the condition for many rows, in a subtransaction. False if it fails for one
// of them: the next batches are divided. Errors: those of the server, and of a condition that fails without
// rows.
bool Sweep::WithCondition(const Statements &statements, const Cutoff &cutoff,
                          const std::function<void()> &body) {
  try {
    pg::InSubtransaction(body);
    return true;
  } catch (const pg::PgError &error) {
    if (!statements.has_condition() || pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    if (of_rows_.count(error.sqlstate()) == 0 && FailureOfCondition({}, statements, cutoff) != 0) throw;
  }
  divided_batches_ = kDividedBatches;
  judges_ = true;
  return false;
}

// Evaluates the condition for rows whose time has come, halving what fails until the bad ones are alone:
// those are kept in the list of stuck rows. Ends early when the batch has taken twice its time, but not
// within the first page.
Sweep::Judged Sweep::Judge(const std::vector<RowVersion> &rows, bool in_order, Oid leaf,
                           const Statements &statements, const Cutoff &cutoff) {
  Judged result;
  Halves range(rows.size());
  auto goes_on = [&] {
    return result.done == 0 || SpentMs() < 2 * policy_.batch_ms ||
           (!in_order &&
            ItemPointerGetBlockNumber(&rows[result.done].tid) == ItemPointerGetBlockNumber(&rows[0].tid));
  };
  while (!range.done() && !stuck_.TooMany() && goes_on()) {
    size_t const begin = range.begin(), end = range.end();
    std::vector<RowVersion> found;
    try {
      pg::InSubtransaction([&] {
        found =
            LockRows(statements.FindNamed(), {cutoff.param(), SqlParam::TidArray(TidsOf(rows, begin, end))});
      });
      result.expired.insert(result.expired.end(), found.begin(), found.end());
    } catch (const pg::PgError &error) {
      if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
      RequireFaultOfRows(error, rows, begin, [&](const std::vector<ItemPointerData> &tids) {
        return FailureOfCondition(tids, statements, cutoff);
      });
      divided_batches_ = kDividedBatches;
      if (range.Split()) continue;
      stuck_.Keep(rows[begin], {error.sqlstate(), error.what()}, leaf, statements);
      run_.worked = true;
      result.failed.insert(begin);
    }
    GiveWay();
    range.Next();
    result.done = range.begin();
  }
  return result;
}

// Locks rows that met the condition a moment ago.
std::vector<RowVersion> Sweep::LockJudged(const Judged &judged, bool in_order, const Statements &statements,
                                          const Cutoff &cutoff, int64 &passed_over) {
  const std::vector<RowVersion> &rows = judged.expired;
  std::vector<RowVersion> locked;
  TakeExpiredRowsMet();
  bool const met = WithCondition(statements, cutoff, [&] {
    locked =
        LockRows(statements.LockNamed(), {cutoff.param(), SqlParam::TidArray(TidsOf(rows, 0, rows.size()))});
  });
  // It fails for a row that has been changed meanwhile, or by chance: the next sweep sees.
  if (!met) {
    for (const RowVersion &row : rows) stuck_.PassOver(row);
    passed_over += static_cast<int64>(rows.size());
  }
  if (in_order)
    std::stable_sort(locked.begin(), locked.end(),
                     [](const RowVersion &a, const RowVersion &b) { return a.expires < b.expires; });
  return locked;
}

// Locks the rows of a batch, at most `most`, with the parameters of LockInOrder or LockInPages.
Sweep::Selected Sweep::Select(bool in_order, const std::vector<SqlParam> &params, size_t most, Oid leaf,
                              const Statements &statements, const Cutoff &cutoff) {
  Selected selected;
  // The rows before one for which the condition fails would be looked at for nothing in each batch.
  bool const met = !judges_ && WithCondition(statements, cutoff, [&] {
    selected.rows = LockRows(in_order ? statements.LockInOrder() : statements.LockInPages(), params);
  });
  if (met) {
    selected.looked_at = selected.rows.size();
    selected.ended = selected.rows.size() < most;
    if (!selected.rows.empty()) {
      selected.expires = selected.rows.back().expires;
      selected.left_page = ItemPointerGetBlockNumber(&selected.rows.back().tid);
    }
    return selected;
  }
  Statements const by_time = statements.ByTime();
  std::vector<RowVersion> const rows =
      LockRows(in_order ? by_time.FindInOrder() : by_time.FindInPages(), params);
  Judged const judged = Judge(rows, in_order, leaf, statements, cutoff);
  selected.looked_at = judged.done;
  selected.kept = static_cast<int64>(judged.failed.size());
  selected.rows = LockJudged(judged, in_order, statements, cutoff, selected.kept);
  selected.ended = judged.done == rows.size() && rows.size() < most;
  if (judged.done > 0) selected.expires = rows[judged.done - 1].expires;
  if (!selected.ended)
    selected.left_page = ItemPointerGetBlockNumber(&rows[std::min(judged.done, rows.size() - 1)].tid);
  return selected;
}

// Removes rows that are locked, halving what fails until the bad ones are alone: those are kept in the list
// of stuck rows, or passed over for this sweep where a lock was in the way. Ends early when the transaction
// has enough subtransactions or has taken twice its time; `done` rows have been dealt with then, one at
// least.
Sweep::Divided Sweep::Divide(const std::vector<RowVersion> &rows, Oid leaf, const Statements &statements,
                             const Cutoff &cutoff) {
  pg::LocalSettings settings;
  settings.Set("lock_timeout", "20ms");
  Divided result;
  Halves range(rows.size());
  int parts = 0;
  while (!range.done() && parts < kMostParts && !stuck_.TooMany() && blocked_rows_ < kMostBlockedRows &&
         (result.done == 0 || SpentMs() < 2 * policy_.batch_ms)) {
    size_t const begin = range.begin();
    Try const part = TryRows(TidsOf(rows, begin, range.end()), true, statements, cutoff);
    if (part.error) {
      RequireFaultOfRows(*part.error, rows, begin, [&](const std::vector<ItemPointerData> &tids) {
        Try const single = TryRows(tids, false, statements, cutoff);
        return single.error ? single.error->sqlstate() : 0;
      });
      divided_batches_ = kDividedBatches;
      if (range.Split()) continue;
      if (pg::IsTransient(part.error->sqlstate())) {
        stuck_.PassOver(rows[begin]);
        ++result.passed_over;
        ++state_.skipped;
        ++skipped_;
        ++blocked_rows_;
        run_.message = part.error->what();
      } else {
        stuck_.Keep(rows[begin], {part.error->sqlstate(), part.error->what()}, leaf, statements);
        run_.worked = true;
        ++result.kept;
        blocked_rows_ = 0;
      }
      result.failed.insert(begin);
    } else {
      ++parts;
      result.removed += part.removed;
      blocked_rows_ = 0;
    }
    range.Next();
    result.done = range.begin();
  }
  return result;
}

Sweep::Removed Sweep::DividedBatch(Oid leaf, const Statements &statements, const Cutoff &cutoff) {
  --divided_batches_;
  pg::LocalSettings settings;
  ChoosePlan(settings, state_.order);
  bool const in_order = state_.order == Order::kIndex;
  int const size = BatchRows();
  int64 const end = std::min(state_.next_page + state_.batch_pages, state_.end_page);
  std::vector<SqlParam> params;
  if (in_order)
    params = {cutoff.param(), cutoff.ParamOf(state_.watermark), SqlParam::Int4(size),
              SqlParam::TidArray(stuck_.ExpiringFrom(state_.watermark))};
  else
    params = {cutoff.param(), TidOf(state_.next_page), TidOf(end),
              SqlParam::TidArray(stuck_.InPages(state_.next_page, end)), SqlParam::Int4(kMostRows)};
  Selected const selected =
      Select(in_order, params, static_cast<size_t>(in_order ? size : kMostRows), leaf, statements, cutoff);
  if (divided_batches_ == 0) judges_ = false;
  const std::vector<RowVersion> &rows = selected.rows;
  int64 const locked = std::max<int64>(TakeExpiredRowsMet() - static_cast<int64>(rows.size()), 0);
  Divided const divided = Divide(rows, leaf, statements, cutoff);
  Removed removed;
  removed.rows = divided.removed;
  removed.met = divided.removed + locked;
  removed.kept = divided.kept + divided.passed_over + selected.kept;
  bool const all = divided.done == rows.size();
  if (in_order) {
    if (!all && divided.done > 0)
      state_.watermark = rows[divided.done - 1].expires;
    else if (all)
      state_.watermark = std::max(state_.watermark, selected.expires);
    removed.leaf_done = all && selected.ended;
    if (!removed.leaf_done)
      state_.batch_rows = AdaptSize(std::max(static_cast<int>(all ? selected.looked_at : divided.done), 1),
                                    SpentMs(), policy_.batch_ms, kMostRows);
    return removed;
  }
  // A row that was changed while it was being locked may be elsewhere now.
  int64 next = selected.ended ? end : std::min(end, selected.left_page);
  for (size_t i = divided.done; i < rows.size(); ++i)
    next = std::min<int64>(next, ItemPointerGetBlockNumber(&rows[i].tid));
  next = std::max(next, state_.next_page);
  int const pages = static_cast<int>(std::max<int64>(next - state_.next_page, 1));
  state_.next_page = next;
  removed.leaf_done = next >= state_.end_page;
  state_.batch_pages = AdaptSize(pages, SpentMs(), policy_.batch_ms, kMostPages);
  return removed;
}

// Tries rows whose time has come once more.
Sweep::Removed Sweep::DueBatch(Oid leaf, const Statements &statements, const Cutoff &cutoff) {
  pg::LocalSettings settings;
  ChoosePlan(settings, Order::kPages);
  // A few rows prove nothing, but when these were kept others had been removed.
  of_rows_.insert(stuck_.sqlstates().begin(), stuck_.sqlstates().end());
  std::vector<ItemPointerData> const due = stuck_.TakeDue(kMostDue);
  std::vector<ItemPointerData> gone;
  std::vector<RowVersion> rows;
  int64 kept = 0;
  auto lock = [&] { rows = LockRows(statements.LockNamed(), {cutoff.param(), SqlParam::TidArray(due)}); };
  if (!WithCondition(statements, cutoff, lock)) {
    std::vector<RowVersion> const known =
        LockRows(statements.ByTime().FindNamed(), {cutoff.param(), SqlParam::TidArray(due)});
    Judged const judged = Judge(known, false, leaf, statements, cutoff);
    kept = static_cast<int64>(judged.failed.size());
    std::set<ItemPointerData, ByTid> expired;
    for (const RowVersion &row : judged.expired) expired.insert(row.tid);
    for (size_t i = 0; i < known.size(); ++i) {
      if (i >= judged.done)
        stuck_.GiveBackDue(known[i].tid);
      else if (judged.failed.count(i) == 0 && expired.count(known[i].tid) == 0)
        gone.push_back(known[i].tid);
    }
    rows = LockJudged(judged, false, statements, cutoff, kept);
  }
  int64 const locked = std::max<int64>(TakeExpiredRowsMet() - static_cast<int64>(rows.size()), 0);
  Divided const divided = Divide(rows, leaf, statements, cutoff);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i >= divided.done)
      stuck_.GiveBackDue(rows[i].tid);
    else if (divided.failed.count(i) == 0)
      gone.push_back(rows[i].tid);
  }
  stuck_.Forget(gone);
  Removed removed;
  removed.rows = divided.removed;
  removed.met = divided.removed + locked;
  removed.kept = divided.kept + divided.passed_over + kept;
  return removed;
}

bool Sweep::TakeBlocked() {
  if (blocked_rows_ < kMostBlockedRows) return false;
  blocked_rows_ = 0;
  return true;
}

}  // namespace prm::expiry
