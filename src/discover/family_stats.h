// The facts of an audit about one key, and about many keys together.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "discover/value_kind.h"

namespace prm {

// Redis' replies about a key; replies that were not asked for, or were refused, are absent.
struct KeyFacts {
  std::string type;                  // as TYPE names it; empty when not known
  std::optional<int64_t> ttl_ms;     // kNoExpiry: it has none
  std::optional<int64_t> idle_s;     // OBJECT IDLETIME
  std::optional<int64_t> frequency;  // OBJECT FREQ
  std::optional<uint64_t> bytes;     // MEMORY USAGE
  std::optional<ValueKind> kind;     // of the value, or of one element
  size_t integer_digits = 0;         // of a value of kind kInteger
  std::string field;                 // a field of a hash

  static constexpr int64_t kNoExpiry = -1;
};

// The minimum and maximum of some numbers.
struct Range {
  int64_t least = 0;
  int64_t greatest = 0;
  uint64_t count = 0;

  void Add(int64_t value);
  void Merge(const Range& other);
};

class FamilyStats {
 public:
  // Expiries are counted by remaining time: less than an hour, a day, a week, 30 days; or more.
  static constexpr std::array<int64_t, 4> kTtlLimitsMs = {3600000, 86400000, 604800000, 2592000000};
  static constexpr size_t kTtlBuckets = kTtlLimitsMs.size() + 1;
  static constexpr size_t kMaxExamples = 3;
  static constexpr size_t kMaxFields = 8;

  // Counts a key; facts: nullptr if nothing was asked about it.
  void Add(Bytes key, const KeyFacts* facts);
  void Merge(const FamilyStats& other);

  uint64_t keys = 0;
  uint64_t asked = 0;  // of which something was asked
  uint64_t sized = 0;  // of which bytes is the sum
  uint64_t bytes = 0;
  uint64_t with_expiry = 0;  // these two concern the keys whose expiry is known
  uint64_t without_expiry = 0;
  Range ttl_ms;  // of those that have one
  std::array<uint64_t, kTtlBuckets> ttl_buckets = {};
  Range idle_s;
  Range frequency;
  std::map<std::string, uint64_t> types;
  std::array<uint64_t, kValueKinds> kinds = {};
  uint64_t values = 0;  // that kinds counts
  Range integer_digits;
  std::vector<std::string> fields;    // some fields of hashes, each once
  std::vector<std::string> examples;  // some keys

  // The most frequent type; empty when none is known.
  std::string Type() const;
  // The most frequent kind of value; none when no value was read.
  std::optional<ValueKind> Kind() const;
};

// The keys that have one pattern, apart by type: a mapping takes one type.
struct KeyStats {
  std::map<std::string, FamilyStats> by_type;  // empty: the type is not known

  // Decisions on what to ask about keys; kept by the caller.
  struct Plan {
    uint64_t names = 0;
    uint64_t facts = 0;
    uint64_t values = 0;
  };
  Plan plan;

  void Add(Bytes key, const KeyFacts* facts);
  void Merge(const KeyStats& other);
  uint64_t keys() const;
  uint64_t asked() const;
  uint64_t values() const;

  // Distributes keys that were not asked about over the types of the others, in proportion.
  void ShareUnknown();
};

}  // namespace prm
