// All mappings of one pattern. A key is fed to all of them, and stored by all or by none.
//
// A batch is tried whole; when its data is bad it is halved until the bad keys are alone, so that a bad row
// never costs its batch. Each try is a subtransaction.
#pragma once

#include "mapping/mapping_query.h"
#include "pg/transaction.h"
#include "store/ledger.h"
#include "store/tally.h"

namespace prm {

using pg::kMostSubtransactions;

// A line of preview: a row that would be stored for a key.
struct PreviewRow {
  const source::Entry *entry;
  std::string mapping;
  std::string row;  // JSON
};

class PatternGroup {
 public:
  // `mappings` in the order in which they are fed; `archive` marks the group that keeps unmapped keys.
  PatternGroup(KeyPattern pattern, const std::vector<const Mapping *> &mappings, bool archive);
  ~PatternGroup();
  PatternGroup(PatternGroup &&) noexcept;

  const KeyPattern &pattern() const { return pattern_; }

  struct Options {
    bool defer = false;             // keep what a foreign key or a lower key refuses for the end of the level
    bool beside_others = false;     // other processes store rows of the same mappings
    std::optional<int64> seen_run;  // prune: note the rows met, for this run
    const std::set<std::string> *claiming = nullptr;  // mappings whose packed ledger takes unchanged rows
    int *subtransactions = nullptr;  // how many more the transaction may keep; none: as many as it takes
    std::vector<PreviewRow> *preview = nullptr;  // collect the rows that would be stored
    bool preview_bytes = false;                  // with their columns of type bytea
  };

  // Maps and stores entries that were read and belong to the pattern, and counts them. Sorts them first: the
  // lowest key wins a row that several yield. Runs in the current transaction; needs SPI. Returns those that
  // are left for another transaction because this one may keep no more subtransactions.
  // Errors: of the mapping or the server, not of a key: see pg::FaultOf; everything written by this call is
  // then to be rolled back.
  std::vector<const source::Entry *> Process(std::vector<BatchEntry> &entries, const Options &options,
                                             Tally &tally);

  struct State;  // of a mapping, kept from batch to batch

 private:
  class Work;  // one call of Process

  KeyPattern pattern_;
  bool archive_;
  std::vector<std::unique_ptr<State>> states_;
};

}  // namespace prm
