// The links of a live run: one to its server, or of a cluster one to each master.
#pragma once

#include "live/live_record.h"
#include "pg/pg.h"
#include "redis/cluster_topology.h"

namespace prm {

// The ids of a shard's nodes, the master first.
std::vector<std::string> NodesOf(const redis::ClusterShard &shard);

// Returns the masters of a cluster that have slots, with their slots; nothing: the server is no cluster.
// Commits. Errors: those of ServerOptions and redis::FindTopology.
std::optional<redis::ClusterTopology> TopologyOf(const std::string &server, Oid user);

// Returns the links with which a run began, by number. Commits. Errors: those of TopologyOf.
std::vector<LiveRecord> LinksOf(int64 run_id, const std::string &server);

}  // namespace prm
