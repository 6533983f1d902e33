// How a value is encoded, told from its first bytes.
#pragma once

#include <cstddef>

#include "core/bytes.h"

namespace prm {

enum class ValueKind {
  kEmpty,
  kInteger,     // -?digits that fit bigint, as Redis counts
  kJsonObject,  // RFC 8259
  kJsonArray,
  kJsonScalar,  // a string, a number with fraction or exponent, true, false, null
  kPickle,      // Python, protocols 0 and 2 to 5
  kPhp,         // serialize(), also as session.serialize_handler "php" writes it
  kJava,        // Java Object Serialization: AC ED 00 05
  kMarshal,     // Ruby: 04 08
  kRails,       // Rails 7.1 cache entries: 00 11
  kMsgpack,     // an array or map with valid elements, possibly truncated
  kGzip,        // RFC 1952
  kZlib,        // RFC 1950
  kZstd,        // RFC 8878
  kText,        // valid UTF-8 without control bytes but tab, line feed, carriage return
  kBinary,      // anything else
};

inline constexpr size_t kValueKinds = static_cast<size_t>(ValueKind::kBinary) + 1;

// This much of a value is enough.
inline constexpr size_t kValueKindBytes = 512;

// The kind of the value that begins with `prefix`; whole: `prefix` is the whole value. A truncated value is
// judged by its beginning.
ValueKind DetectValueKind(Bytes prefix, bool whole);

// "json object", "python pickle" and so on, as audits show them.
const char* ValueKindName(ValueKind kind);

}  // namespace prm
