// Background workers that keep the replication links of live runs.
#pragma once

#include "live/link_workers.h"

namespace prm::worker {

std::unique_ptr<LinkWorkers> NewLinkWorkers();

}  // namespace prm::worker
