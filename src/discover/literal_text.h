// Tells what of a key may be shown as it is: words that no id consists of.
#pragma once

#include <cstddef>

#include "core/bytes.h"

namespace prm {

// Text with at most so many unknown bytes is too short for a secret.
inline constexpr size_t kMostUnknownBytes = 8;

// How many bytes of a segment of a key could belong to an id: letters that are no known words
// (discover/known_words.h) and digits, except up to three after words. In texts that mix capitals with small
// letters or digits, and in those with letters behind digits or longer numbers, each counts twice. This does
// not compare how likely words are: words are so few that of random texts with ten or more letters and digits
// not one in 10^7 has at most kMostUnknownBytes.
size_t UnknownBytes(Bytes segment);

// The most unknown bytes of a segment that many keys have. Names of applications are not longer; ids mostly
// are.
inline constexpr size_t kMostUnknownOfMany = 18;

}  // namespace prm
