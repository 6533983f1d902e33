// The start data of a worker, in bgw_extra: identifies its claim among all of the same slot.
#pragma once

#include "pg/pg.h"

namespace prm::worker {

struct StartData {
  uint32 generation;
  int64 incarnation;
  uint32 settings;  // pg::SharedText: those of the session that leads; 0: none
};

}  // namespace prm::worker
