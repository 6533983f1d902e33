// Background workers that read parts of a run beside the process that leads it.
#pragma once

#include "run/parts.h"

namespace prm::worker {

std::unique_ptr<Helpers> NewPartWorkers();

}  // namespace prm::worker
