// Names of keys are of any length, and an entry of a B-tree is not: indexes of the extension's tables hold
// what this function makes of them.
#pragma once

#include "core/bytes.h"
#include "pg/pg.h"

namespace prm {

// A name of up to 256 bytes as it is; of a longer one the first 256 bytes and the SHA-256 of all. So no two
// names have the same, and names are in order but for long ones that begin alike. Errors: 53200.
std::string IndexKey(Bytes name);

}  // namespace prm
