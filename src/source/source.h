// Where entries come from. A source yields batches; each batch carries the position that is reached when all
// of it has been stored, so that data and position can be committed together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "source/entry.h"

namespace prm::source {

struct Batch {
  std::vector<Entry> entries;
  uint64_t bytes = 0;    // of keys and payloads
  std::string position;  // opaque to everyone but the source that wrote it
  // An RDB version that this release does not read, if a payload of one was met: the values come in pieces.
  std::optional<unsigned> unknown_version;
  bool goes_beyond = false;  // holds entries that whoever goes on from `position` gets again
};

enum class Interest { kIgnore, kNameOnly, kRead };

// Decides by name what the source has to read. Called once for each name that is not a duplicate.
class KeyFilter {
 public:
  virtual ~KeyFilter() = default;
  virtual Interest Classify(int db, Bytes key) = 0;
};

class Source {
 public:
  virtual ~Source() = default;

  // Fills the next batch; false when there is none left. A batch may have no entries (only the position
  // moved).
  virtual Result<bool> Next(Batch& batch) = 0;
};

}  // namespace prm::source
