// Reads blocks of the journal, and strikes off lines that are undone.
#pragma once

#include "core/journal_block.h"
#include "pg/pg.h"

namespace prm {

struct JournalBlockRead {
  int64 id;
  int64 run_id;
  int64 mapping_id;
  std::string target;
  std::vector<std::string> columns;  // the key columns first
  std::vector<std::string> types;    // theirs then: BaseTypeName
  size_t keys;
  SipKey salt;
  std::vector<JournalLine> lines;  // the oldest first

  // Whether both are of rows of the same kind.
  bool IsLike(const JournalBlockRead &other) const {
    return mapping_id == other.mapping_id && keys == other.keys && target == other.target &&
           columns == other.columns && types == other.types;
  }
};

// The newest blocks of a run below a number: one, and more up to so many lines and bytes altogether. Needs
// SPI; works with the rights of the extension's owner. Errors: XX001 for a damaged block.
std::vector<JournalBlockRead> ReadJournal(int64 run_id, int64 before, int most_lines, int64 most_bytes);

// Takes lines from a block, with their large values. Needs SPI; works with the rights of the extension's
// owner.
void StrikeOff(const JournalBlockRead &block, const std::vector<bool> &is_undone);

}  // namespace prm
