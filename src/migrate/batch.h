// Takes the entries of a batch to where they belong and counts every one of them.
#pragma once

#include "migrate/routing.h"

namespace prm::migrate {

// Decides by name what a pass has to read.
class PassFilter : public source::KeyFilter {
 public:
  // level: of the pass; nothing: everything in one pass, but for keys that are not selected.
  PassFilter(const Routing &routing, std::optional<int> level) : routing_(routing), level_(level) {}
  source::Interest Classify(int db, Bytes key) override;

 private:
  const Routing &routing_;
  std::optional<int> level_;
  Match match_;
};

// What is to be done with keys that no pattern owns.
struct UnmappedKeys {
  bool reject = false;
  PatternGroup *archive = nullptr;
};

// The mapping that stores unmapped keys in the archive of a migration.
Mapping ArchiveMapping(const std::string &migration);

// Routes, maps and stores the entries of a batch that belong to the level (nothing: all), in the current
// transaction. Errors: those of PatternGroup::Process.
void ProcessEntries(Routing &routing, const UnmappedKeys &unmapped,
                    const std::vector<const source::Entry *> &entries, std::optional<int> level, bool recount,
                    const PatternGroup::Options &options, Tally &tally);

// Takes those of the entries out of the archive that have a mapping by now: Redis has a newer value than the archive,
// and a run from the archive must not bring the old one back.
void ForgetArchived(const std::string &migration, const Routing &routing,
                    const std::vector<const source::Entry *> &entries);

}  // namespace prm::migrate
