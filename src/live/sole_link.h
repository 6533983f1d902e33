// Keeps a database from following a server beside an exact copy of that database, which has the same identity
// and position. Redis sees both links.
#pragma once

#include "pg/pg.h"
#include "redis/connection.h"

namespace prm {

class SoleLink {
 public:
  // Reads on which server the live run of a migration was started. Needs SPI.
  SoleLink(const std::string &migration, int64 run_id);

  // Before a connection becomes the link of the run. Errors: 57P03 while the server has another link of this
  // name that is alive, which may be an earlier one of this process; 55000 once that has lasted for half a
  // minute; those of redis::FindTwinLink.
  void Require(redis::Connection &connection);

 private:
  std::string migration_;
  std::string name_;
  std::optional<int64> since_ms_;  // since when there has been another link
};

}  // namespace prm
