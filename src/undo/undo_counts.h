// Counts of how undoing a run changed the rows of a mapping.
#pragma once

#include "core/hash_set.h"
#include "write/row_texts.h"

namespace prm {

struct UndoCounts {
  int64 restored = 0;    // got their earlier values
  int64 put_back = 0;    // had been deleted
  int64 removed = 0;     // had been inserted
  int64 left_alone = 0;  // somebody else has changed them since
  int64 failed = 0;      // the target refused them
  int64 unknown = 0;     // changes that are not in the journal
  int64 already = 0;     // somebody else had taken them back
  int64 changes = 0;     // of the run that are dealt with: a row may have had several
};

// A row that was not undone.
struct LeftRow {
  RowText key;
  std::string sqlstate;  // empty: somebody else has changed it
  std::string reason;
  int64 rows = 1;  // so many, without keys
};

// The findings of one transaction. They count only if it commits.
struct UndoFindings {
  UndoCounts counts;
  std::vector<LeftRow> left;
  std::vector<size_t> undone;  // lines of the journal, by their numbers
  int subtransactions = 0;     // that were kept
  void Add(UndoFindings &&other) {
    counts.restored += other.counts.restored;
    counts.put_back += other.counts.put_back;
    counts.removed += other.counts.removed;
    counts.already += other.counts.already;
    counts.changes += other.counts.changes;
    for (LeftRow &row : other.left) left.push_back(std::move(row));
    undone.insert(undone.end(), other.undone.begin(), other.undone.end());
    subtransactions += other.subtransactions;
  }
};

// The hash of a row by the texts of its key columns.
inline Hash128 HashOfKey(const std::string &mapping, const RowText &key) {
  std::string bytes = mapping;
  for (const auto &text : key) bytes += text ? '\1' + std::to_string(text->size()) + ':' + *text : "\2";
  return SipHash128(SipKey{}, bytes);
}

}  // namespace prm
