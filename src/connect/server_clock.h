// The clock of a server, by which the expiries of its keys count.
#pragma once

#include "pg/pg.h"
#include "redis/connection.h"

namespace prm {

// By how many milliseconds it is ahead of ours; 0 if the user may not ask. Nothing may be pending. Errors:
// those of Connection::Command, kProtocol.
int64 FetchClockAhead(redis::Connection &connection);

}  // namespace prm
