// Sees to it that the link of a live run has a worker, and knows what that says.
#pragma once

#include "live/link_workers.h"
#include "live/live_record.h"

namespace prm {

// Thrown when the stream cannot be followed any further: another run has to begin with a new snapshot.
struct FullSyncNeeded {
  std::string why;
};

class LinkWatch {
 public:
  // record must outlive it.
  explicit LinkWatch(const LiveRecord &record) : record_(record), workers_(new_link_workers()) {}

  // To be called now and then, with no transaction that has to be committed: looks after the link at most
  // every tenth of a second, and commits. Throws FullSyncNeeded, and the error of a link that will not pass
  // by itself.
  void Look();

  // Whether the server of the link has this replication id.
  bool IsOfServer(const std::string &replication_id) const {
    return status_.replication_id == replication_id;
  }

  // Whether the link has left the server until there is room on the disk. What a link that has ended has left
  // behind does not count.
  bool IsSpoolFull() const { return status_.state == "spool full" && status_.noted_at != left_at_; }

  // Of a cluster: the ids of the nodes of the link, the master first, as last seen.
  const std::vector<std::string> &nodes() const { return status_.nodes; }

  bool IsStreaming() const { return status_.state == "streaming"; }

  // Large values that changed up to there are wanted at once: somebody waits for them.
  uint64 flush_offset() const { return status_.flush_offset; }

  // Ends the worker.
  void Stop() { workers_->Stop(record_.run_id(), record_.link()); }

 private:
  const LiveRecord &record_;
  std::unique_ptr<LinkWorkers> workers_;
  LinkStatus status_;
  std::optional<TimestampTz> left_at_;  // when the status was noted that was there at the beginning
  int64 looked_ms_ = 0;
  int64 started_ms_ = 0;
  bool told_ = false;
};

}  // namespace prm
