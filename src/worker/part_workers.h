// Background workers that read parts of a run, or of a verification, beside the process that leads it.
#pragma once

#include "parts/helpers.h"

namespace prm::worker {

std::unique_ptr<Helpers> NewPartWorkers(const Work &work);

}  // namespace prm::worker
