// A run with the real queries, constraints and triggers, rolled back.
#pragma once

#include "store/batch.h"

namespace prm {

class DryRun {
 public:
  // Reads at most max_keys selected keys (and at most 64 MB) from the source of the migration, and counts the
  // others that it meets. Holds no transaction id. Errors: those of the source.
  DryRun(const Migration &migration, const std::string &source, const std::optional<std::string> &priority,
         const std::optional<std::string> &mapping, int64 max_keys);

  // Maps and stores everything inside a subtransaction, and rolls it back. May be called once.
  // preview: the rows that would be stored, with their columns of bytes if `bytes`.
  void Play(std::vector<PreviewRow> *preview = nullptr, bool bytes = false);

  const Routing &routing() const { return routing_; }
  const Tally &tally() const { return tally_; }
  const Tally::Outcomes &outcomes() const { return *tally_.by_key; }
  const std::vector<const source::Entry *> &entries() const { return entries_; }

 private:
  void PassOver(source::Batch &batch, int64 most);

  const Migration &migration_;
  Routing routing_;
  Tally passed_over_;
  std::vector<source::Batch> batches_;
  std::vector<const source::Entry *> entries_;
  Tally tally_;
};

}  // namespace prm
