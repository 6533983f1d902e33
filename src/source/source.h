// Where entries come from. A source yields batches; each batch carries the position that is reached when all
// of it has been stored, so that data and position can be committed together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"

namespace prm::source {

enum class EntryState {
  kRead,      // payload and expiry are filled
  kVanished,  // the name was returned, the value was gone when read
  kNameOnly,  // the filter asked for the name alone
  kTooLarge,  // larger than max_value_bytes: size is filled, payload is not
};

// One key as read.
struct Entry {
  int db = 0;
  std::string key;
  EntryState state = EntryState::kRead;
  std::string payload;                   // DUMP bytes
  std::optional<int64_t> expires_at_ms;  // absolute, Unix time in milliseconds
  uint64_t size = 0;                     // kTooLarge: bytes that Redis says the key occupies
};

struct Batch {
  std::vector<Entry> entries;
  uint64_t bytes = 0;        // of keys and payloads
  std::string position;      // opaque to everyone but the source that wrote it
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
