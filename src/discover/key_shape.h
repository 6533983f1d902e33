// The parts of a key name: words, and the numbers, UUIDs, addresses, dates and so on between them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/bytes.h"

namespace prm {

enum class PieceClass : char {
  kLiteral = 1,  // words and punctuation
  kInt,          // a number without leading zeros
  kDigits,       // with leading zeros: 014748
  kNumber,       // with a fraction: 1794782360.054569
  kUuid,
  kInet,   // IPv4, or IPv6 with its colons
  kDate,   // 2026-11-21
  kDay,    // 20261121, which may be any number
  kMonth,  // 2026-11
  kHex,    // a hash or another long hexadecimal number
  kEmail,
  kUrl,     // from its scheme to the end of the key
  kToken,   // random letters and digits: a session id, base64
  kBinary,  // from the first byte that no pattern can name (control bytes, invalid UTF-8) to the segment's
            // end
  kText,    // never found in a key: replaces different words
};

struct Piece {
  PieceClass what;
  Bytes text;  // a view into the key
};

// A part of a key between separators. Separators are : / | # = & ? , ; @ blanks, brackets and braces, and the
// full stop in keys that have none of : / | @. Values such as an IPv6 address keep theirs.
struct Segment {
  size_t first_piece = 0;
  size_t pieces = 0;
  char separator = 0;  // the one that follows, if any
  bool has_separator = false;
};

// The shape of one key. Reusing it for the next key saves allocations.
struct KeyShape {
  std::vector<Piece> pieces;
  std::vector<Segment> segments;  // at least one; of a key that ends with a separator the last one is empty
};

// The limits of a shape; bytes and segments beyond them are one piece kText.
inline constexpr size_t kMaxShapeBytes = 512;
inline constexpr size_t kMaxShapeSegments = 20;
inline constexpr size_t kMaxShapePieces = 40;

// Finds the shape of a key. Any bytes are a key, even none.
void FindShape(Bytes key, KeyShape& shape);

}  // namespace prm
