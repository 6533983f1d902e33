// The words that names of keys are made of.
#pragma once

#include "core/bytes.h"

namespace prm {

// Whether a word of small letters is one of those that applications and their frameworks commonly name keys
// with, also in the plural, or two of them as in "ratelimit".
bool IsKnownWord(Bytes word);

}  // namespace prm
