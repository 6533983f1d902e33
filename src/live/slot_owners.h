// Which link of a live run over a cluster has a key now.
//
// A change that a master has sent says nothing of its key any more once another master has the key's slot:
// masters hand keys over with RESTORE there and DEL here, in streams that know no common order. So what each
// batch changed is compared with what the master says after it has sent that.
#pragma once

#include <array>

#include "live/link_watch.h"
#include "redis/cluster_topology.h"

namespace prm {

class SlotOwners {
 public:
  // One for each master, which must outlive it.
  explicit SlotOwners(std::vector<const LinkWatch *> links);

  // Takes what the master at the other end says. node: where the connection leads. Errors: those of
  // redis::FetchTopology and redis::FetchSlotMoves. Throws FullSyncNeeded when there is a master with slots
  // that no link leads to.
  void Ask(redis::Connection &connection, const redis::Endpoint &node, bool tls);

  // As of the last Ask: the link, counted from 0, whose master has the slot of a key; nothing while the slot
  // is being moved, or is nobody's.
  std::optional<size_t> LinkOf(Bytes key) const;

 private:
  size_t LinkTo(const std::string &master) const;

  std::vector<const LinkWatch *> links_;
  std::array<int, redis::kClusterSlots> owners_;
};

}  // namespace prm
