#include "source/cluster_walk.h"

#include <algorithm>
#include <utility>

#include "redis/info.h"

namespace prm::source {

using redis::Slots;

Status ClusterWalk::FindTopology() {
  Result<redis::ClusterTopology> topology = redis::FindTopology(deployment_, waiter_);
  if (!topology.ok()) return topology.error();
  topology_ = std::move(topology.value());
  return {};
}

Result<std::optional<uint64_t>> ClusterWalk::CountKeys() {
  uint64_t keys = 0;
  for (const redis::ClusterShard& shard : topology_.shards) {
    auto connection = Connect(shard.master);
    if (!connection.ok()) return connection.error();
    const Result<redis::Reply> size = connection.value()->Command({"DBSIZE"});
    if (!size.ok() && size.error().code == ErrorCode::kPermissionDenied) return std::optional<uint64_t>();
    if (!size.ok()) return size.error();
    const auto count = size.value().Integer();
    if (!count || *count < 0) return connection.value()->UnknownReply("DBSIZE");
    keys = redis::AddKeys(keys, static_cast<uint64_t>(*count));
  }
  return std::optional<uint64_t>(keys);
}

Result<Slots> ClusterWalk::ImportedSlots() {
  Slots imported;
  for (const redis::ClusterShard& shard : topology_.shards) {
    auto connection = Connect(shard.master);
    if (!connection.ok()) return connection.error();
    const Result<redis::SlotMoves> moves = redis::FetchSlotMoves(*connection.value());
    if (!moves.ok()) return moves.error();
    imported |= moves.value().under_way & ~shard.slots;
  }
  return imported;
}

Result<Slots> ClusterWalk::EnterNext(const Slots& done, const Slots& imported) {
  const redis::ClusterTopology topology = topology_;  // updated as nodes report it
  Slots served;
  for (const redis::ClusterShard& shard : topology.shards) {
    served |= shard.slots;
    if ((shard.slots & ~done & ~imported).none()) continue;
    PRM_RETURN_IF_ERROR(EnterShard(shard));
    const Result<Slots> stable = StableSlots();
    if (!stable.ok()) return stable.error();
    const Slots wanted = stable.value() & ~done & ~imported;
    if (wanted.any()) return wanted;
    Leave();
  }
  const bool all_served = (done | served).all();
  return Error{ErrorCode::kUnavailable,
               "slots " + redis::SlotsToText(all_served ? ~done : ~(done | served)) + " of the cluster are " +
                   (all_served ? "being moved" : "served by no node"),
               {},
               all_served ? "They are read when the move is complete." : ""};
}

// Connects to the master, or to the first replica that can be read.
Status ClusterWalk::EnterShard(const redis::ClusterShard& shard) {
  Status entered(
      Error{ErrorCode::kUnavailable,
            "no node that could be read serves slots " + redis::SlotsToText(shard.slots) + " of the cluster",
            {},
            {}});
  if (!reads_replicas()) return shard.master.is_online ? Enter(shard.master) : entered;
  for (const redis::ClusterNode& replica : shard.replicas) {
    if (!replica.is_online) continue;
    entered = Enter(replica);
    if (entered.ok()) break;
  }
  return entered;
}

Result<Slots> ClusterWalk::Enter(const std::string& id) {
  const redis::ClusterShard* shard = topology_.ShardOf(id);
  const redis::ClusterNode* node = shard == nullptr ? nullptr : NodeToRead(*shard, id);
  if (node == nullptr) return Slots();
  if (const Status entered = Enter(redis::ClusterNode(*node)); !entered.ok()) {
    // A replica may lack its link for long, and others may be suitable.
    if (reads_replicas() && entered.error().code == ErrorCode::kUnavailable) return Slots();
    return entered.error();
  }
  return StableSlots();
}

Status ClusterWalk::Enter(const redis::ClusterNode& node) {
  node_ = node;
  auto connection = Connect(node);
  if (!connection.ok()) return connection.error();
  connection_ = std::move(connection.value());
  if (!reads_replicas()) return {};
  PRM_RETURN_IF_ERROR(redis::CheckRole(*connection_, redis::ReadFrom::kReplica, deployment_.stale_replica));
  const Result<redis::Reply> readonly = connection_->Command({"READONLY"});
  return readonly.ok() ? Status() : Status(readonly.error());
}

void ClusterWalk::Leave() {
  connection_.reset();
  node_ = {};
}

Result<Slots> ClusterWalk::StableSlots() {
  Result<redis::ClusterTopology> view = redis::FetchTopology(*connection_, node_.endpoint, is_tls());
  if (!view.ok()) return view.error();
  topology_ = std::move(view.value());
  const redis::ClusterShard* shard = topology_.ShardOf(node_.id);
  if (shard == nullptr) return Slots();
  const bool is_master = shard->master.id == node_.id;
  if (!is_master && !reads_replicas()) return Slots();
  std::unique_ptr<redis::Connection> to_master;
  if (!is_master) {
    auto opened = Connect(shard->master);
    if (!opened.ok()) return opened.error();
    to_master = std::move(opened.value());
  }
  const Result<redis::SlotMoves> moves = redis::FetchSlotMoves(is_master ? *connection_ : *to_master);
  if (!moves.ok()) return moves.error();
  epoch_ = moves.value().epoch;
  return shard->slots & ~moves.value().under_way;
}

const redis::ClusterNode* ClusterWalk::NodeToRead(const redis::ClusterShard& shard,
                                                  const std::string& id) const {
  const auto may_be_read = [&](const redis::ClusterNode& node) { return node.is_online && node.id == id; };
  if (!reads_replicas()) return may_be_read(shard.master) ? &shard.master : nullptr;
  const auto found = std::find_if(shard.replicas.begin(), shard.replicas.end(), may_be_read);
  return found == shard.replicas.end() ? nullptr : &*found;
}

}  // namespace prm::source
