// What the worker of a link tells of it, and asks: whether it is wanted still.
#pragma once

#include "live/live_record.h"
#include "live/live_workers.h"

namespace prm {

class LinkReport {
 public:
  // record must outlive it.
  LinkReport(const LiveRecord &record, std::string migration)
      : record_(record), workers_(new_link_workers()), migration_(std::move(migration)) {}

  // Writes the status, whose reconnects are counted then, and commits. Does not wait for the disk: the server
  // has to be read, and a lost note is written again.
  void Note(LinkStatus &status);

  // Whether the run has a worker, and has not made way for another one. Commits.
  bool IsWanted();

 private:
  const LiveRecord &record_;
  std::unique_ptr<LiveWorkers> workers_;
  std::string migration_;
};

}  // namespace prm
