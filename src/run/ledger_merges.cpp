#include "run/ledger_merges.h"

#include "ledger/packed_ledger.h"
#include "pg/spi.h"
#include "write/journal.h"

namespace prm {

namespace {

constexpr int64 kMergeWorthBytes = 4 * 1024 * 1024;  // fewer keys are not worth the question

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
  for (const Mapping *mapping : routing.Mappings()) {
    if (mapping->ledger != "packed") continue;
    PackedLedger::Merge(mapping->id);
    PackedLedger::DeleteExpired(mapping->id);
    pg::Spi::Commit();
  }
  Journal::DeleteExpired();
  pg::Spi::Commit();
}

}  // namespace prm
