// Rolling back what an error has left of the work of a run.
#pragma once

#include "pg/error.h"

namespace prm::pg {

// After an error in a run, before anything is written down: rolls back what there is. Errors: 55000, with the
// message that led here, when the extension is gone and nothing can be written down.
void RollBackAfter(const Problem &problem);

}  // namespace prm::pg
