// Walks over the nodes of a Redis Cluster until every slot is done: chooses the next node and decides which
// of its slots a scan has settled.
//
// A slot is settled by a complete scan of one node if the node reports before and after the scan that it
// serves the slot, the slot was not being moved at either time, and no slots came to the node meanwhile: the
// slot might have left and come back. Then every key that existed throughout was returned, unless a move was
// begun and taken back in between.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "redis/cluster_slots.h"
#include "redis/cluster_topology.h"
#include "redis/deployment.h"

namespace prm::source {

class ClusterWalk {
 public:
  // Call FindTopology first. The waiter must outlive the walk.
  ClusterWalk(const redis::Deployment& deployment, redis::Waiter& waiter)
      : deployment_(deployment), waiter_(waiter) {}

  // Asks the seeds for the nodes. Errors: those of redis::FindTopology.
  Status FindTopology();

  // As last seen: StableSlots updates it from the nodes that it asks.
  const redis::ClusterTopology& topology() const { return topology_; }

  // Keys in the masters; nullopt if they do not say. Asks every master, so that an unreachable one is noticed
  // at once. Errors: those of the connections.
  Result<std::optional<uint64_t>> CountKeys();

  // Another connection to a node. Errors: those of Connection::Open.
  Result<std::unique_ptr<redis::Connection>> Connect(const redis::ClusterNode& node) {
    return redis::OpenNode(deployment_, node.endpoint, waiter_);
  }

  // The slots that a master is importing. If a replica has become a master in the middle of a move, only the
  // importing node knows that some keys of its slots are elsewhere. Asks every master. Errors: those of the
  // connections and of FetchSlotMoves.
  Result<redis::Slots> ImportedSlots();

  // Connects to the first node that serves slots which are neither done, imported by another nor being moved,
  // and returns them. Errors: kUnavailable (the remaining slots are not served or are being moved), those of
  // Connection.
  Result<redis::Slots> EnterNext(const redis::Slots& done, const redis::Slots& imported = {});

  // Connects to the node with that id, and returns its StableSlots; none if it should no longer be read.
  // Errors: those of Connection.
  Result<redis::Slots> Enter(const std::string& id);

  // Reconnects to the same node, to get rid of replies that are no longer wanted.
  Status Reenter() { return Enter(redis::ClusterNode(node_)); }

  // Closes the connection.
  void Leave();

  // The connection to the node that was entered.
  redis::Connection& connection() { return *connection_; }
  const std::string& node_id() const { return node_.id; }  // empty: none

  // The slots that the node reports as its own and that are not being moved according to its master. Errors:
  // those of FetchTopology and FetchSlotMoves.
  Result<redis::Slots> StableSlots();

  // As of the last StableSlots: changes when a slot of the node, or of its master, has left and come back.
  uint64_t epoch() const { return epoch_; }

 private:
  Status Enter(const redis::ClusterNode& node);
  Status EnterShard(const redis::ClusterShard& shard);
  const redis::ClusterNode* NodeToRead(const redis::ClusterShard& shard, const std::string& id) const;

  bool is_tls() const { return deployment_.connection.tls.mode != redis::TlsMode::kOff; }
  bool reads_replicas() const { return deployment_.read_from == redis::ReadFrom::kReplica; }

  redis::Deployment deployment_;
  redis::Waiter& waiter_;
  redis::ClusterTopology topology_;
  redis::ClusterNode node_;
  uint64_t epoch_ = 0;
  std::unique_ptr<redis::Connection> connection_;
};

}  // namespace prm::source
