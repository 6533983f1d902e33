// Which node of a Redis Cluster serves which slots.
#pragma once

#include <string>
#include <vector>

#include "redis/cluster_slots.h"
#include "redis/connection.h"
#include "redis/endpoint.h"

namespace prm::redis {

struct ClusterNode {
  std::string id;  // 40 hex digits
  Endpoint endpoint;
  bool is_online = true;
};

struct ClusterShard {
  ClusterNode master;
  std::vector<ClusterNode> replicas;
  Slots slots;
};

struct ClusterTopology {
  std::vector<ClusterShard> shards;  // those that have slots, in the order of their first

  // The slots that any of them has.
  Slots slots() const;

  // The shard that a node is the master or a replica of, or nullptr.
  const ClusterShard* ShardOf(const std::string& node_id) const;

  // The shard whose master is one of these nodes, the first that is if there are more, or nullptr.
  const ClusterShard* ShardOfMaster(const std::vector<std::string>& node_ids) const;
};

// The topology that the node at the other end knows: CLUSTER SHARDS (Redis 7.0) or, where that is missing,
// refused, or lacks slots that it tells, CLUSTER SLOTS. Nodes are named as they announce themselves; a node
// without a name is `asked`. Errors: kInvalidArgument (not a cluster), kProtocol, those of
// Connection::Command.
Result<ClusterTopology> FetchTopology(Connection& connection, const Endpoint& asked, bool tls);

struct SlotMoves {
  Slots under_way;     // to or from another node
  uint64_t epoch = 0;  // grows when a slot has left and come back; 0: unknown
};

// The slots that the node at the other end, a master, migrates and imports, according to CLUSTER NODES;
// nullopt where that is refused. Errors: those of Connection::Command.
Result<SlotMoves> FetchSlotMoves(Connection& connection);

}  // namespace prm::redis
