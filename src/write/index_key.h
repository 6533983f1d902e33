// Names of keys can have any length, but entries of a B-tree cannot. So the indexes of the extension's tables
// hold the result of this function.
#pragma once

#include "core/bytes.h"
#include "pg/pg.h"

namespace prm {

// A name of up to 256 bytes is left as it is; a longer one becomes its first 256 bytes and the SHA-256 of the
// whole. So no two names have the same result, and the order of names is kept, except among long ones that
// begin alike. Errors: 53200.
std::string IndexKey(Bytes name);

}  // namespace prm
