// The part of preflight that is about this database, not about Redis.
#pragma once

#include <string>

#include "connect/preflight_live.h"

namespace prm {

// Checks the settings of the session and the ledgers of the migrations of a server that the caller may see.
void CheckDatabase(const std::string &server, const AddCheck &add);

}  // namespace prm
