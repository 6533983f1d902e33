// The order in which the keys of a batch are stored.
#pragma once

#include <vector>

#include "source/entry.h"

namespace prm::source {

// Sorts entries by database and by the bytes of their keys.
void SortByKey(std::vector<const Entry*>& entries);

}  // namespace prm::source
