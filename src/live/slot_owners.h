// Tells which link of a live run over a cluster now has a key.
//
// A change that a master has sent no longer tells the state of its key once another master has the key's
// slot: masters hand keys over by RESTORE in one stream and DEL in the other, and the streams have no common
// order. So the keys of each batch are compared with the slots that the master has after it has sent the
// batch.
#pragma once

#include <array>

#include "live/link_watch.h"
#include "redis/cluster_topology.h"

namespace prm {

class SlotOwners {
 public:
  // One for each master, which must outlive it.
  explicit SlotOwners(std::vector<const LinkWatch *> links);

  // Asks the master at the other end for its slots. node: where the connection leads. Errors: those of
  // redis::FetchTopology and redis::FetchSlotMoves. Throws FullSyncNeeded when there is a master with slots
  // that no link leads to.
  void Ask(redis::Connection &connection, const redis::Endpoint &node, bool tls);

  // The link, counted from 0, whose master had the slot of a key at the last Ask; nothing if the slot was
  // being moved, or had no master.
  std::optional<size_t> LinkOf(Bytes key) const;

  // Whether another master than that of a link had a slot at the last Ask.
  bool IsOfOther(size_t slot, size_t link) const;

 private:
  size_t LinkTo(const std::string &master) const;

  std::vector<const LinkWatch *> links_;
  std::array<int, redis::kClusterSlots> owners_;
};

}  // namespace prm
