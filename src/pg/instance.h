// Tells a server from its copies, such as restored backups, clones and promoted standbys.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// The identity of this server: a number in a file that is not part of the data, because base backups leave
// out files whose name begins with pgsql_tmp, and the timeline, which each promotion and each restore to a
// point in time changes. Draws the number if there is none. Not on a standby. Errors: those of files.
std::string ThisInstance();

}  // namespace prm::pg
