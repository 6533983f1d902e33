// Values of any size as they are shown to people.
#pragma once

#include "pg/pg.h"

namespace prm {

using ShownPair = std::pair<std::optional<std::string>, std::optional<std::string>>;

// Two values of a type as text; nothing for NULL. Of long ones, the part in which they begin to differ, with
// its place in bytes. bytea is shown in hex. Errors: those of the type's output function.
ShownPair ShowDifference(Oid type, std::optional<Datum> a, std::optional<Datum> b);

}  // namespace prm
