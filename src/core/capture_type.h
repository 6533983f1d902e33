// The types of captures in key patterns and which texts are values of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/bytes.h"

namespace prm {

// Every text that fits a type is accepted by PostgreSQL's input function for it. Two different texts never
// mean the same value, except: number (trailing zeros of the fraction), uuid and hex (case), inet (spellings
// of an IPv6 address), date and month (with and without hyphens).
enum class CaptureType {
  kText,    // any bytes
  kInt,     // bigint: -?digits, neither leading zeros nor -0
  kNumber,  // decimal: as int, of any size, with an optional fraction of at least one digit
  kUuid,    // 8-4-4-4-12 hexadecimal digits
  kInet,    // IPv4 as dotted quad without leading zeros, or IPv6 (RFC 4291, 2.2); no zone, no prefix length
  kDate,    // YYYY-MM-DD or YYYYMMDD, a day of the calendar from year 1 on
  kMonth,   // YYYY-MM or YYYYMM
  kHex,     // hexadecimal digits, an even or odd number of them
  kEmail,   // local@domain: no white space, control bytes or colons; two or more labels in the domain
};

// The type's name as patterns write it, e.g. "inet".
const char* CaptureTypeName(CaptureType type);

// The names of all types, separated by commas, for messages.
std::string CaptureTypeNames();

// The type of that name, if there is one.
std::optional<CaptureType> CaptureTypeFromName(std::string_view name);

// Values of all types but text are at most this long; longer texts do not fit.
inline constexpr size_t kMaxTypedBytes = 256;

// Lengths in bytes, ascending.
struct PrefixLengths {
  std::array<uint16_t, kMaxTypedBytes> length;
  size_t count = 0;
};

// Finds every prefix of `text` that is a value of `type` (not text), in one pass over at most kMaxTypedBytes.
void FindPrefixes(CaptureType type, Bytes text, PrefixLengths& prefixes);

// Whether `text` is the canonical spelling of a value of `type`: numbers without trailing zeros of the
// fraction, uuid in lower case, IPv6 addresses as in RFC 5952, dates and months with hyphens. No two
// canonical texts mean the same value.
bool IsCanonical(CaptureType type, Bytes text);

// Whether the whole of `text` is a value of `type`. A value has at least one byte.
bool FitsType(CaptureType type, Bytes text);

}  // namespace prm
