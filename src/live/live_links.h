// The links of a live run: one to its server, or of a cluster one to each master.
#pragma once

#include "live/live_record.h"
#include "pg/pg.h"
#include "redis/cluster_topology.h"

namespace prm {

// The ids of a shard's nodes, the master first.
std::vector<std::string> NodesOf(const redis::ClusterShard &shard);

// The masters of a cluster that have slots, and these; nothing: the server is no cluster. Commits. Errors:
// those of ServerOptions and redis::FindTopology.
std::optional<redis::ClusterTopology> TopologyOf(const std::string &server, Oid user);

// The links of a run, by number, as it began with them. Commits. Errors: those of TopologyOf.
std::vector<LiveRecord> LinksOf(int64 run_id, const std::string &server);

}  // namespace prm
