// The processes that apply the changes of a live run, each those of a share of the keys. The first one leads:
// it looks after the others, and the end of one of them with an error is its own.
#pragma once

#include "live/followed_run.h"
#include "live/links.h"
#include "live/live_workers.h"

namespace prm {

// Applies the changes of a share of the keys, from all links, until it is interrupted. The snapshot is
// loaded, and the shares are begun. Throws FullSyncNeeded. Errors: those of Follower.
[[noreturn]] void FollowLinks(FollowedRun &run, Links &links);

// The other appliers of a live run, as the process that leads them sees them.
class Appliers {
 public:
  // record: of any link, with the first share; must outlive it.
  explicit Appliers(const LiveRecord &record) : record_(record), workers_(new_applier_workers()) {}
  // Ends the others and waits for that: they keep the migration from being run and changed.
  ~Appliers();
  Appliers(const Appliers &) = delete;
  Appliers &operator=(const Appliers &) = delete;

  // To be called often, outside of a transaction that has to be committed. Starts those that do not run.
  // Commits. Errors: that with which one of them ended; FullSyncNeeded likewise.
  void Look();

 private:
  const LiveRecord &record_;
  std::unique_ptr<LiveWorkers> workers_;
  std::map<int, int64> started_ms_;  // by number
  bool told_ = false;
};

// Ends those that a process which led the run before, and has ended, may have left.
void StopAppliersLeft(const std::string &migration);

}  // namespace prm
