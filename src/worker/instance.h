// Tells a server from its copies. A live run goes on by itself only where it was started, so that a restored
// backup, a clone or a promoted standby does not follow a Redis beside the server that it was made from.
#pragma once

#include "worker/job.h"

namespace prm::worker {

// The identity of this server: a number in a file that is not part of the data, because base backups leave
// out files whose name begins with pgsql_tmp, and the timeline, which each promotion and each restore to a
// point in time changes. Draws the number if there is none. Not on a standby. Errors: those of files.
std::string ThisInstance();

// Whether a live run was started or confirmed here. One that no worker has taken up since start,
// confirm_instance or resume_restored belongs to this server from now on. Needs SPI.
bool IsOfThisInstance(const Job &job);

}  // namespace prm::worker
