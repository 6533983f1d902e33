// Distinguishes bad rows, which a live run leaves aside, from a mapping that cannot store anything any more.
#pragma once

#include "live/live_record.h"
#include "store/tally.h"

namespace prm {

class RejectStreak {
 public:
  // Counts the rejects of a batch. Errors: if a hundred keys of a mapping in a row were rejected for one
  // reason and none was stored, that with the SQLSTATE of the rejects, or 22000 if they have none.
  void Take(const std::string &migration, const Tally &tally);

 private:
  struct Streak {
    std::string reason;  // SQLSTATE or rule
    std::set<KeyId> keys;
  };

  std::map<std::string, Streak> streaks_;  // by mapping
};

}  // namespace prm
