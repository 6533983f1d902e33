// The reverse query of a mapping that needs none of its owner's.
#pragma once

#include "mapping/mapping_query.h"
#include "reverse/reverse_mapping.h"

namespace prm {

// The query over redis_rows of a mapping whose columns are plain copies of the value; empty: they are not.
std::string DeriveQuery(const QueryFacts &facts, const ReverseMapping &reverse);

}  // namespace prm
