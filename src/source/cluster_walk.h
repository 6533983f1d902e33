// Walks over the nodes of a Redis Cluster until every slot is done: which node comes next, and which of its
// slots a scan of it settles.
//
// A slot is settled when one node has served it from the start of a whole scan of that node to its end, as
// the node itself says before and after, and it was not being moved at either time, nor have slots come to
// the node meanwhile: it may have been one that had gone. Then every key that existed throughout was
// returned, unless a move was begun and taken back in between.
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
  // FindTopology has to be called before anything else. The waiter must outlive the walk.
  ClusterWalk(const redis::Deployment& deployment, redis::Waiter& waiter)
      : deployment_(deployment), waiter_(waiter) {}

  // Asks the seeds which nodes there are. Errors: those of redis::FindTopology.
  Status FindTopology();

  // As last seen: nodes tell what they know whenever StableSlots asks them.
  const redis::ClusterTopology& topology() const { return topology_; }

  // Keys in the masters, or nothing if they do not say. Asks every master, so that one that cannot be reached
  // shows at once. Errors: those of the connections.
  Result<std::optional<uint64_t>> CountKeys();

  // Another connection to a node. Errors: those of Connection::Open.
  Result<std::unique_ptr<redis::Connection>> Connect(const redis::ClusterNode& node) {
    return redis::OpenNode(deployment_, node.endpoint, waiter_);
  }

  // The slots that a master is taking over from another one. Of a replica that has become a master in the
  // middle of a move nobody else learns that some keys of its slots are elsewhere. Asks every master. Errors:
  // those of the connections and of FetchSlotMoves.
  Result<redis::Slots> ImportedSlots();

  // Connects to the first node that serves slots which are neither done, imported by another nor being moved,
  // and returns those.
  // Errors: kUnavailable (what is not done is served by nobody, or is being moved), those of Connection.
  Result<redis::Slots> EnterNext(const redis::Slots& done, const redis::Slots& imported = {});

  // Connects to the node with that id, and returns its StableSlots; none if it is not to be read any more.
  // Errors: those of Connection.
  Result<redis::Slots> Enter(const std::string& id);

  // Connects to the same node again, for when replies are under way to what is not wanted any more.
  Status Reenter() { return Enter(redis::ClusterNode(node_)); }

  // Closes the connection.
  void Leave();

  // To the node that was entered.
  redis::Connection& connection() { return *connection_; }
  const std::string& node_id() const { return node_.id; }  // empty: none

  // The slots that the node serves, as it says itself, and that are not being moved, as its master says.
  // Errors: those of FetchTopology and FetchSlotMoves.
  Result<redis::Slots> StableSlots();

  // As of the last StableSlots: another one when a slot of the node, or of its master, has gone and come
  // back.
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
