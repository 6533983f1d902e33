#include "live/slot_owners.h"

#include "pg/arguments.h"

namespace prm {

namespace {

constexpr int kNobody = -1;

}  // namespace

SlotOwners::SlotOwners(std::vector<const LinkWatch *> links) : links_(std::move(links)) {
  owners_.fill(kNobody);
}

size_t SlotOwners::LinkTo(const std::string &master) const {
  for (size_t i = 0; i < links_.size(); ++i) {
    const std::vector<std::string> &nodes = links_[i]->nodes();
    if (std::find(nodes.begin(), nodes.end(), master) != nodes.end()) return i;
  }
  throw FullSyncNeeded{"node " + master + " of the cluster has slots now, and no link leads there"};
}

void SlotOwners::Ask(redis::Connection &connection, const redis::Endpoint &node, bool tls) {
  redis::ClusterTopology const topology = pg::ValueOrThrow(redis::FetchTopology(connection, node, tls));
  redis::Slots const moving = pg::ValueOrThrow(redis::FetchSlotMoves(connection)).under_way;
  owners_.fill(kNobody);
  for (const redis::ClusterShard &shard : topology.shards) {
    int const link = static_cast<int>(LinkTo(shard.master.id));
    for (size_t slot = 0; slot < redis::kClusterSlots; ++slot)
      if (shard.slots[slot] && !moving[slot]) owners_[slot] = link;
  }
}

bool SlotOwners::IsOfOther(size_t slot, size_t link) const {
  return owners_[slot] != kNobody && owners_[slot] != static_cast<int>(link);
}

std::optional<size_t> SlotOwners::LinkOf(Bytes key) const {
  int const link = owners_[redis::KeySlot(key)];
  return link == kNobody ? std::nullopt : std::optional(static_cast<size_t>(link));
}

}  // namespace prm
