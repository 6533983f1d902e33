// The data that a worker is started with, in bgw_extra: enough to tell its claim from later ones of the same
// slot.
#pragma once

#include "pg/pg.h"

namespace prm::worker {

struct StartData {
  uint32 generation;
  int64 incarnation;
};

}  // namespace prm::worker
