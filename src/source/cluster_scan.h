// Reads the keys of a Redis Cluster: one node after the other with a ScanSource.
//
// A slot is done when a scan has settled it (source/cluster_walk.h). Slots that moved meanwhile, or whose
// node failed, are scanned again on the node that serves them then. So no key is missed, but keys of such
// slots may be returned more than once.
//
// A scan may cover only some of the slots, so that several processes can read a cluster in parallel. It
// follows its slots to other nodes.
//
// A command for a moved key returns MOVED or ASK. The key is not read by itself: its slot is removed from the
// current scan and read, after the move, from the node that serves it.
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

// The position of the scan of a cluster, as text that can be stored.
struct ClusterPosition {
  std::vector<std::string> members;  // ids of some nodes: a cluster that knows none of them is another one
  redis::Slots done;
  std::string node;    // id of the node that is being read; empty: none
  uint64_t epoch = 0;  // of ClusterWalk, when its scan began
  redis::Slots slots;  // the slots to read from it
  std::string scan;    // ScanPosition there; empty: from the start

  // "cluster of=<id>,<id> done=<ranges>" and, while a node is being read, " node=<id> epoch=<n>
  // slots=<ranges> <scan>".
  std::string ToString() const;

  // Parses such a text. Errors: kInvalidArgument unless it has the format of ToString.
  static Result<ClusterPosition> Parse(Bytes text);
};

class ClusterScan : public Source {
 public:
  // Prepares a scan from `position` (of an earlier Batch of a scan for the same slots) or, if it is empty,
  // from the start. `slots`: the slots to scan. Ignores options.databases: a cluster has only database 0.
  // Waiter and filter must outlive the source. Uses one connection, and briefly another one. Errors:
  // kInvalidArgument (position, not a cluster), those of redis::FindTopology.
  static Result<std::unique_ptr<ClusterScan>> Open(const redis::Deployment& deployment,
                                                   const ScanOptions& options, KeyFilter& filter,
                                                   const std::string& position, redis::Waiter& waiter,
                                                   const redis::Slots& slots = redis::Slots().set());

  // Errors: those of ScanSource, except kMoved; kUnavailable while slots are not served or are being moved,
  // or where a node says again and again of a slot that it has it and that another has it. After an error or
  // an exception the source is unusable, like a ScanSource.
  Result<bool> Next(Batch& batch) override;

  void Proceed() noexcept override {
    if (scan_ != nullptr) scan_->Proceed();
  }

  // Whether the scan began at the start because the position given to Open is not one of this cluster.
  bool restarted() const { return restarted_; }

  // Keys in the masters when the scan was opened at its start; nullopt if they do not say, or if it does not
  // cover all slots.
  std::optional<uint64_t> key_count() const { return key_count_; }

  // Slots that had to be scanned again, because they moved or their node was restarted or replaced.
  uint64_t repeated_slots() const { return repeated_slots_; }

 private:
  // Passes only names of wanted slots: a node may hold keys of slots that are being moved.
  class SlotFilter : public KeyFilter {
   public:
    explicit SlotFilter(KeyFilter& inner) : inner_(inner) {}
    KeyDecision Classify(int db, Bytes key) override {
      return wanted[redis::KeySlot(key)] ? inner_.Classify(db, key) : KeyDecision();
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
  int contradictions_ = 0;  // since slots were finished: a node has sent us away, and has the slot
};

}  // namespace prm::source
