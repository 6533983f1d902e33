// The interface of sources. A source returns batches; each batch has the position to store with it, so that
// data and position are committed together.
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
  std::string position;  // opaque except to the source that wrote it
  // The RDB version of payloads if this release does not read it: values are then read in pieces.
  std::optional<unsigned> unknown_version;
  // Keys of the databases that begin in the batch, if the source says so only there.
  uint64_t expected_keys = 0;
  bool goes_beyond = false;  // has entries that a reader resuming from `position` gets again
};

enum class Interest { kIgnore, kNameOnly, kRead };

// The decision on a key.
struct KeyDecision {
  Interest interest = Interest::kIgnore;
  uint64_t route = 0;  // of a meaning that only the filter knows: entries carry it to whoever stores them
};

// Decides by name what the source reads. Called once for each name that is not a duplicate.
class KeyFilter {
 public:
  virtual ~KeyFilter() = default;
  virtual KeyDecision Classify(int db, Bytes key) = 0;
};

class Source {
 public:
  virtual ~Source() = default;

  // Fills the next batch; false when there is none left. A batch may have no entries (only the position
  // moved).
  virtual Result<bool> Next(Batch& batch) = 0;

  // To be called now and then while a batch is being used, so that the next one comes meanwhile. Returns at
  // once, and never fails: Next reports what is wrong.
  virtual void Proceed() noexcept {}
};

}  // namespace prm::source
