// Outcomes of keys and rows, on their way into the extension's tables.
#pragma once

#include "core/bytes.h"
#include "source/source.h"
#include "write/writer.h"

namespace prm {

enum class Outcome { kVanished, kRejected, kMigrated, kArchived, kSkipped };
constexpr const char *kOutcomeNames[] = {"vanished", "rejected", "migrated", "archived", "skipped"};

// A key that was refused, and why.
struct Reject {
  const source::Entry *entry;
  std::optional<std::string> pattern;  // nothing: no pattern owns the key
  std::optional<std::string> mapping;
  std::string rule;
  std::optional<std::string> sqlstate;
  std::string message;
  bool partial = false;  // the good elements of the key were stored
};

// The counts of one batch. A pattern of nothing stands for keys that no pattern owns.
struct Tally {
  using Pattern = std::optional<std::string>;
  std::map<Pattern, int64> read;
  std::map<std::tuple<Pattern, Outcome, std::string>, int64> outcomes;
  std::map<std::string, RowCounts> rows;  // per mapping
  std::vector<Reject> rejects;
  std::vector<const source::Entry *> deferred;
  uint64 bytes = 0;
  // The outcome of each key, where somebody wants to know it.
  using Outcomes = std::map<const source::Entry *, std::pair<Outcome, std::string>>;
  std::optional<Outcomes> by_key;

  void Count(const std::vector<const source::Entry *> &entries, const Pattern &pattern, Outcome outcome,
             const std::string &reason) {
    if (entries.empty()) return;
    outcomes[{pattern, outcome, reason}] += static_cast<int64>(entries.size());
    if (!by_key) return;
    for (const source::Entry *entry : entries) (*by_key)[entry] = {outcome, reason};
  }

  void Count(const source::Entry *entry, const Pattern &pattern, Outcome outcome,
             const std::string &reason = "") {
    ++outcomes[{pattern, outcome, reason}];
    if (by_key) (*by_key)[entry] = {outcome, reason};
  }
};

}  // namespace prm
