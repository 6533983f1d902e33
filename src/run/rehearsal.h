// What a run would do, with the real queries, constraints and triggers, rolled back.
#pragma once

#include "store/batch.h"

namespace prm {

class Rehearsal {
 public:
  // Reads at most max_keys keys (and at most 64 MB) from the source of the migration; no transaction id is
  // held meanwhile. Errors: those of the source.
  Rehearsal(const Migration &migration, const std::string &source, const std::optional<std::string> &priority,
            const std::optional<std::string> &mapping, int64 max_keys);

  // Maps and stores everything inside a subtransaction, and rolls it back. May be called once.
  void Play(std::vector<PreviewRow> *preview = nullptr);

  const Tally &tally() const { return tally_; }
  const std::map<const source::Entry *, std::pair<Outcome, std::string>> &outcomes() const {
    return outcomes_;
  }
  const std::vector<const source::Entry *> &entries() const { return entries_; }

 private:
  const Migration &migration_;
  Routing routing_;
  std::vector<source::Batch> batches_;
  std::vector<const source::Entry *> entries_;
  std::map<const source::Entry *, std::pair<Outcome, std::string>> outcomes_;
  Tally tally_;
};

}  // namespace prm
