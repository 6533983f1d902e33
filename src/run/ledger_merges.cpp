#include "run/ledger_merges.h"

#include "ledger/packed_ledger.h"
#include "pg/spi.h"
#include "write/journal.h"

namespace prm {

namespace {

constexpr int64 kMergeWorthBytes = 4 * 1024 * 1024;  // fewer keys are not worth the question

// Commits after each.
template <typename Work>
void ForEachPackedLedger(const Routing &routing, Work work) {
  for (const Mapping *mapping : routing.Mappings()) {
    if (mapping->ledger != "packed") continue;
    work(mapping->id);
    pg::Spi::Commit();
  }
}

void ForgetExpired(const Routing &routing) {
  ForEachPackedLedger(routing, PackedLedger::DeleteExpired);
  Journal::DeleteExpired();
  pg::Spi::Commit();
}

}  // namespace

void LedgerMerges::After(const std::map<std::string, RowCounts> &rows) {
  for (const auto &[name, counts] : rows) {
    if (counts.ledger_bytes == 0) continue;
    int64 &bytes = bytes_[name];
    bytes += counts.ledger_bytes;
    if (bytes < kMergeWorthBytes) continue;
    for (const Mapping &mapping : migration_.mappings) {
      if (mapping.name != name || bytes < PackedLedger::MergeCost(mapping.id)) continue;
      PackedLedger::Merge(mapping.id);
      bytes = 0;
    }
    pg::Spi::Commit();
  }
}

void MergeLedgers(const Routing &routing) {
  ForEachPackedLedger(routing, PackedLedger::Merge);
  ForgetExpired(routing);
}

void MaintainLedgers(const Routing &routing) {
  ForEachPackedLedger(routing, [](int64 mapping_id) {
    if (PackedLedger::MergePays(mapping_id)) PackedLedger::Merge(mapping_id);
  });
  ForgetExpired(routing);
}

}  // namespace prm
