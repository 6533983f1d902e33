// Makes sure that the link of a live run has a worker, and reads its state; of a process that only applies a
// share of the changes, reads the state.
#pragma once

#include "live/live_record.h"
#include "live/live_workers.h"

namespace prm {

class LinkWatch {
 public:
  // record must outlive it.
  explicit LinkWatch(const LiveRecord &record) : record_(record), workers_(new_link_workers()) {}

  // Looks after something else, too, whenever it looks at the link: outside of a transaction.
  void set_beside(std::function<void()> look) { beside_ = std::move(look); }

  // To be called often, outside of a transaction that has to be committed. Looks at the link every tenth of a
  // second at most, and commits. Throws FullSyncNeeded, what looking after something else throws, and
  // errors of the link that will not pass by themselves.
  void Look();

  // Whether the server of the link has this replication id.
  bool IsOfServer(const std::string &replication_id) const {
    return status_.replication_id == replication_id;
  }

  // Whether the link waits, without a connection, until there is room on the disk. The last state of a link
  // that has ended does not count.
  bool IsSpoolFull() const { return status_.state == "spool full" && status_.noted_at != left_at_; }

  // The ids of the link's nodes in a cluster, the master first, as last seen.
  const std::vector<std::string> &nodes() const { return status_.nodes; }

  bool IsStreaming() const { return status_.state == "streaming"; }

  // What had changed before this moment is on the disk. 0: it is not known.
  int64 received_at_ms() const { return status_.received_at_ms.value_or(0); }

  // Large values that changed up to there are wanted at once: somebody waits for them.
  uint64 flush_offset() const { return status_.flush_offset; }

  // Ends the worker.
  void Stop() { workers_->Stop(record_.run_id(), record_.link()); }

 private:
  const LiveRecord &record_;
  std::unique_ptr<LiveWorkers> workers_;
  LinkStatus status_;
  std::optional<TimestampTz> left_at_;  // when the status was noted that was there at the beginning
  int64 looked_ms_ = 0;
  int64 started_ms_ = 0;
  bool told_ = false;
  std::function<void()> beside_;
};

}  // namespace prm
