// Scores of sorted sets as text.
#pragma once

#include "core/bytes.h"

namespace prm::rdb {

// Reads a score as Redis writes it: a decimal number, inf, -inf; independent of the locale. False for
// anything else.
bool ParseScore(Bytes text, double& score);

}  // namespace prm::rdb
