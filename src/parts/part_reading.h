// Reads a source in parts, side by side: by the process that leads and by others that take part. Each part
// has a record of its own and is read by one process at a time, which holds its lock. A process without a
// part takes one that nobody reads, so all of them are read with any number of processes, whichever of them
// ends.
#pragma once

#include "mapping/migration_lock.h"
#include "parts/part_table.h"

namespace prm {

// So often the process that leads notes that it is there.
constexpr int kTouchEveryMs = 1000;

class PartReading {
 public:
  // Reads a part to its end. What its transaction holds at the end is committed with the part.
  using ReadPart = std::function<void(const PartTable::Part &, const SourcePart &)>;

  // takes_over: what becomes of a part whose reader has ended, for a WARNING.
  PartReading(PartTable parts, std::string takes_over)
      : parts_(std::move(parts)), takes_over_(std::move(takes_over)) {}

  // For the process that leads: reads the parts that are left and waits until others have read theirs.
  // look: returns how many parts are not done; called before each look for one. Errors: those of `read` and
  // of `look`.
  void ReadAll(const ReadPart &read, const std::function<int()> &look);
  // For the others: waits until there are parts and it is known how many processes read them, and reads those
  // that nobody reads. require_leader: raises an error when has_leader says that nobody leads. An error,
  // those of `read` and of `require_leader`, is told to the leader, if there is one, as the end of the part,
  // unless only this process was asked to end; before that it rolls back.
  void TakePart(const ReadPart &read, const std::function<bool()> &has_leader,
                const std::function<void()> &require_leader);

 private:
  void ReadFree(const ReadPart &read);

  PartTable parts_;
  std::string takes_over_;
  std::optional<PartLock> lock_;
  int number_ = 0;  // of the part that this process reads; 0: none
};

// How many parts are not done. Raises the error that ended the reading of one in another process.
int CountUndone(const std::vector<PartTable::Part> &parts);

}  // namespace prm
