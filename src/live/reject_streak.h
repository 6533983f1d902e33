// Tells bad rows, which a live run leaves aside, from a mapping that can store nothing any more.
#pragma once

#include "live/live_record.h"
#include "store/tally.h"

namespace prm {

class RejectStreak {
 public:
  // Takes note of a batch. Errors: when a hundred keys of a mapping were rejected in a row for one reason and
  // none was stored, with the SQLSTATE of the rejects, or 22000 where they have none.
  void Take(const std::string &migration, const Tally &tally);

 private:
  struct Streak {
    std::string reason;  // SQLSTATE or rule
    std::set<KeyId> keys;
  };

  std::map<std::string, Streak> streaks_;  // by mapping
};

}  // namespace prm
