#include "live/changed_rows.h"

#include "ledger/packed_ledger.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/memory.h"
#include "pg/spi.h"
#include "run/run_summary.h"

namespace prm {
namespace {

constexpr int64 kLookEveryMs = 5000;
constexpr int64 kTellEveryMs = 60 * 1000;
constexpr int64 kMergedBytesPerMs = 16;  // so that small ledgers are merged soon, and large ones seldom

int64 Count(const std::vector<RunRecord::ChangedRows> &found) {
  int64 rows = 0;
  for (const RunRecord::ChangedRows &of_mapping : found) rows += of_mapping.changed + of_mapping.deleted;
  return rows;
}

}  // namespace

ChangedRows::ChangedRows(FollowedRun &run, bool is_resumed) : run_(run), looked_ms_(pg::MonotonicMs()) {
  for (const Mapping *mapping : run.routing().Mappings())
    if (mapping->ledger == "packed") merged_ms_[mapping->id] = looked_ms_;
  if (!is_resumed) told_ = Count(run.record().ReadChangedRows());
}

void ChangedRows::Look() {
  int64 const now_ms = pg::MonotonicMs();
  if (now_ms - looked_ms_ < kLookEveryMs) return;
  looked_ms_ = now_ms;
  pg::Context context("redis_migrate changed rows");  // the procedure's own is never reset
  pg::SwitchContext in_context(context.get());
  for (auto &[mapping_id, merged_ms] : merged_ms_) {
    if (PackedLedger::MergeCost(mapping_id) > (now_ms - merged_ms) * kMergedBytesPerMs) continue;
    PackedLedger::Merge(mapping_id);
    pg::Spi::Commit();
    merged_ms = now_ms;
  }
  if (!told_ms_ || now_ms - *told_ms_ >= kTellEveryMs) {
    std::vector<RunRecord::ChangedRows> const found = run_.record().ReadChangedRows();
    int64 const rows = Count(found);
    if (rows > told_) {
      TellChangedRows(run_.migration().name, run_.record().id(), found);
      told_ = rows;
      told_ms_ = now_ms;
    }
  }
  pg::Spi::Commit();
}

}  // namespace prm
