// One key as a source read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/status.h"
#include "rdb/large_payload.h"
#include "rdb/value.h"

namespace prm::source {

enum class EntryState {
  kRead,         // payload, or large, and expiry are filled
  kVanished,     // the name was returned, the value was gone when read
  kNameOnly,     // the filter asked only for the name
  kExpired,      // it had expired when it was read; a server would not have returned it
  kEmpty,        // an empty collection of a file: Redis skips it, too
  kTooLarge,     // larger than max_value_bytes: size is filled, payload is not
  kChanging,     // was written to each time it was read in pieces
  kUnsupported,  // DUMP may not be used, and the type has no commands to read it in pieces: type_name is
                 // filled
};

// A nonempty string of fewer bytes is short.
constexpr size_t kShortStringLimit = 1024;

// The last millisecond that PostgreSQL's timestamps have. Redis accepts later expiries, which mean never.
constexpr int64_t kLatestExpiryMs = 9224318015999999;

// When something happened: after one time, at another at the latest. Unix time in milliseconds, by the clock
// that expiries count by; zeros: it is not known.
struct TimeSpan {
  int64_t after_ms = 0;
  int64_t until_ms = 0;
};

struct Entry {
  int db = 0;
  std::string key;
  EntryState state = EntryState::kRead;
  bool plain = false;   // a string without the frame of DUMP
  std::string payload;  // DUMP bytes; the value's own bytes if plain; empty if large is set
  std::shared_ptr<rdb::LargePayload> large;  // the payload of a large collection, outside memory
  std::optional<int64_t> expires_at_ms;      // absolute, Unix time in milliseconds
  uint64_t size = 0;                         // kTooLarge: its size in Redis, or in a file
  std::string type_name;                     // kUnsupported: the reply of TYPE
  uint64_t route = 0;                        // as the filter has it: see KeyDecision
  // The value has only some elements of the key's, and those in gone_elements, as a value of the same type,
  // are gone; the others stay as they are. Only of a stream; one of the two may be empty.
  bool is_part = false;
  std::string gone_elements;
  // If the value has only a part of a list: the positions of the first elements of the two.
  uint64_t first_position = 0;
  uint64_t first_gone = 0;
  TimeSpan changed;  // of the command of a stream that made it what it is, or is not
};

// The bytes of the payload, wherever they are.
uint64_t PayloadSize(const Entry& entry);

// Leaves the entry without a payload, and frees its memory.
void DropPayload(Entry& entry);

// The type of the value. The entry must be kRead. Errors: those of rdb::DumpType.
Result<rdb::ValueType> TypeOf(const Entry& entry);

// Whether the value is an empty collection, which Redis never has but damaged files may. The entry must be
// kRead. Checks only small payloads.
bool IsEmptyCollection(const Entry& entry);

// Passes the value to the visitor. The entry must be kRead. Errors: those of rdb::DecodeDump.
Status Decode(const Entry& entry, rdb::ValueVisitor& visitor);

// The value as a DUMP payload, which RESTORE takes; for a short string the same, however it was read. The
// entry must be kRead. Errors: those of reading a large payload.
Result<std::string> DumpOf(const Entry& entry);

// At most `size` bytes of the payload from `offset`, which point into the entry or into `scratch`. Errors:
// those of reading a large payload, kCorruptData where it ends too early.
Result<Bytes> PayloadPart(const Entry& entry, uint64_t offset, size_t size, std::string& scratch);

}  // namespace prm::source
