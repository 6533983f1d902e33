// Background workers beside the one of a live run: they keep its links, and apply shares of the changes.
#pragma once

#include "live/live_workers.h"

namespace prm::worker {

std::unique_ptr<LiveWorkers> NewLinkWorkers();
std::unique_ptr<LiveWorkers> NewApplierWorkers();

}  // namespace prm::worker
