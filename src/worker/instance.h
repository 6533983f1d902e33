// A live run goes on by itself only where it was started, so that a restored backup, a clone or a promoted
// standby does not follow a Redis beside the server that it was made from.
#pragma once

#include "worker/job.h"

namespace prm::worker {

// Whether a live run was started or confirmed here. One that no worker has taken up since start,
// confirm_instance or resume_restored belongs to this server from now on. Needs SPI.
bool IsOfThisInstance(const Job &job);

}  // namespace prm::worker
