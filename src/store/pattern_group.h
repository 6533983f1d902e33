// All mappings of one pattern. A key is fed to all of them, and stored by all or by none.
//
// A batch is tried whole; when its data is bad it is halved until the bad keys are alone, so that a bad row
// never costs its batch. Each try is a subtransaction.
#pragma once

#include "store/batch_options.h"
#include "store/prepared_mapping.h"
#include "store/tally.h"

namespace prm {

class PatternGroup {
 public:
  // `mappings` in the order in which they are fed; `archive` marks the group that keeps unmapped keys.
  PatternGroup(KeyPattern pattern, const std::vector<const Mapping *> &mappings, bool archive);

  const KeyPattern &pattern() const { return pattern_; }

  // Maps and stores entries that were read and belong to the pattern, and counts them. Sorts them first: the
  // lowest key wins a row that several yield. Runs in the current transaction; needs SPI. Returns those that
  // are left for another transaction because this one may keep no more subtransactions.
  // Errors: of the mapping or the server, not of a key: see pg::FaultOf; everything written by this call is
  // then to be rolled back.
  std::vector<const source::Entry *> Process(std::vector<const source::Entry *> &entries,
                                             const BatchOptions &options, Tally &tally);

  // Deletes the rows of keys that are gone, or changes them as on_delete says, and counts the keys as
  // vanished. Only the names of the entries are looked at; they are plain. Returns those whose rows are still
  // referenced: they are neither deleted nor counted. Otherwise as Process.
  std::vector<const source::Entry *> Delete(std::vector<const source::Entry *> &entries,
                                            const BatchOptions &options, Tally &tally);

  // Whether changes of single elements of values of that type can be stored without the others, by all
  // mappings. Prepares them: in a transaction; needs SPI. Errors: those of MappingState::Prepare.
  bool TakesElements(rdb::ValueType type) const;

  // Forgets what it has prepared. Call it after a rollback, which also undoes what that was made from.
  void Forget();

 private:
  class Work;  // one call of Process

  KeyPattern pattern_;
  bool archive_;
  std::vector<std::unique_ptr<MappingState>> states_;
};

}  // namespace prm
