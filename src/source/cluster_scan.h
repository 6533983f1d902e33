// Reads the keys of a Redis Cluster: one node after the other with a ScanSource.
//
// A slot is done when a scan has settled it (source/cluster_walk.h). Slots that moved meanwhile, or whose
// node failed, are scanned again where they are served by then. So no key is missed, but keys of such slots
// may be returned more than once.
//
// A scan may be for some of the slots only, so that several processes read a cluster side by side: it follows
// its slots wherever they go.
//
// A key that has moved answers MOVED or ASK. It is not read from elsewhere on its own: its slot is taken out
// of the scan under way and read from the node that serves it, when the move is over.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "redis/cluster_slots.h"
#include "redis/deployment.h"
#include "source/cluster_walk.h"
#include "source/scan.h"
#include "source/source.h"

namespace prm::source {

// How far the scan of a cluster has come, as text that can be stored.
struct ClusterPosition {
  std::vector<std::string> members;  // ids of some nodes: a cluster that knows none of them is another one
  redis::Slots done;
  std::string node;    // id of the node that is being read; empty: none
  uint64_t epoch = 0;  // of ClusterWalk, when its scan began
  redis::Slots slots;  // that it is read for
  std::string scan;    // ScanPosition there; empty: from the start

  // "cluster of=<id>,<id> done=<ranges>" and, while a node is being read, " node=<id> epoch=<n>
  // slots=<ranges> <scan>".
  std::string ToString() const;

  // The inverse. kInvalidArgument for anything that ToString does not write.
  static Result<ClusterPosition> Parse(Bytes text);
};

class ClusterScan : public Source {
 public:
  // Prepares a scan from `position` (of an earlier Batch of a scan for the same slots) or, if it is empty,
  // from the start. `slots`: that it is for. Of `options`, databases is not used: a cluster has database 0.
  // Waiter and filter must outlive the source. Holds one connection, and for a moment another one. Errors:
  // kInvalidArgument (position, not a cluster), those of redis::FindTopology.
  static Result<std::unique_ptr<ClusterScan>> Open(const redis::Deployment& deployment,
                                                   const ScanOptions& options, KeyFilter& filter,
                                                   const std::string& position, redis::Waiter& waiter,
                                                   const redis::Slots& slots = redis::Slots().set());

  // Errors: those of ScanSource, except kMoved; kUnavailable while slots are served by nobody or are being
  // moved. After an error or an exception the source is dead, as a ScanSource is.
  Result<bool> Next(Batch& batch) override;

  // The position that Open was given is not one of this cluster, so that the scan began at the start.
  bool restarted() const { return restarted_; }

  // Keys in the masters when the scan was opened at its start, or nothing if they do not say, or if it is not
  // for all slots.
  std::optional<uint64_t> key_count() const { return key_count_; }

  // Slots that had to be scanned again, because they moved or their node was restarted or replaced.
  uint64_t repeated_slots() const { return repeated_slots_; }

 private:
  // Lets through the names of the slots that are wanted: a node may hold others that are on their way.
  class SlotFilter : public KeyFilter {
   public:
    explicit SlotFilter(KeyFilter& inner) : inner_(inner) {}
    Interest Classify(int db, Bytes key) override {
      return wanted[redis::KeySlot(key)] ? inner_.Classify(db, key) : Interest::kIgnore;
    }
    redis::Slots wanted;

   private:
    KeyFilter& inner_;
  };

  ClusterScan(const redis::Deployment& deployment, const ScanOptions& options, KeyFilter& filter,
              redis::Waiter& waiter)
      : walk_(deployment, waiter), options_(options), filter_(filter) {}

  Status Start(const std::string& position, const redis::Slots& slots);
  void NoteMembers();
  bool HasMember(const ClusterPosition& position) const;
  Status BeginNode();
  redis::Slots Kept(const redis::Slots& stable) const;
  Status OpenScan();
  Status LeaveSlot(const Error& moved);
  Status FinishNode();
  void CloseNode();

  ClusterWalk walk_;
  ScanOptions options_;
  SlotFilter filter_;
  ClusterPosition position_;
  std::unique_ptr<ScanSource> scan_;
  std::optional<uint64_t> key_count_;
  bool restarted_ = false;
  uint64_t repeated_slots_ = 0;
};

}  // namespace prm::source
