// The demands of a live run on the mappings of a migration.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// Errors: 0A000 for a mapping of which nothing tells which rows a key has, and for an expanded one whose
// target has no index by which the rows of a key are found; with the statement that helps.
void RequireFollowable(const Migration &migration);

}  // namespace prm
