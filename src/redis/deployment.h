// Where a Redis is and how it is to be read.
#pragma once

#include "redis/connection.h"

namespace prm::redis {

struct Deployment {
  ConnectionOptions connection;
  long max_rate = 0;  // keys per second; 0: no limit
};

}  // namespace prm::redis
