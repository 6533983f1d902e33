// The names of later levels that a scan has returned: reading their keys takes no scan of its own.
#pragma once

#include <map>

#include "pg/pg.h"
#include "source/scan.h"

namespace prm {

// Keeps names, up to some megabytes, for a minute after the scan began. A key that begins to exist in this
// time is left to the next run, as one is that begins to exist behind a scan.
class LevelNames {
 public:
  // A scan of the whole server for a level begins. Forgets all names.
  void Begin(int level);
  // The scan has returned the name of a key of that level.
  void Note(int level, int db, Bytes key);
  // A page of the scan has ended; the next one begins at the cursor.
  void EndPage(const std::string &cursor);
  // The scan, if there was one, has ended. run_id: of the server; empty: it does not say, or names may have
  // been returned twice.
  void End(const std::string &run_id);
  void Forget();

  // All names of a level, which are then forgotten; nothing: they are not known.
  std::optional<source::ListedNames> Take(int level);

 private:
  struct Names {
    std::vector<source::NamesPage> pages;
    bool is_open = false;  // the last page has not ended
    size_t bytes = 0;
  };
  enum class State { kNothing, kScanning, kKnown };

  // Returns its level.
  int ForgetLargest();

  State state_ = State::kNothing;
  int scanned_ = 0;  // the level that the scan was for
  TimestampTz begun_ = 0;
  std::map<int, std::optional<Names>> of_levels_;  // nothing: more than are kept
  std::string run_id_;
  size_t bytes_ = 0;
};

}  // namespace prm
