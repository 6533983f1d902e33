#include "reverse/cluster_sender.h"

#include "core/position_key.h"
#include "pg/background.h"
#include "pg/spi.h"
#include "sink/command_abilities.h"

namespace prm {

namespace {

constexpr int64 kMostMoveMs = 5000;  // without a slot that is done
constexpr long kLookAgainMs = 20;

}  // namespace

ClusterSender::ClusterSender(const std::string &migration, const redis::Deployment &deployment,
                             const std::string &instance)
    : ReverseSender(migration, instance),
      deployment_(deployment),
      tags_(redis::SlotTags()),
      positions_(redis::kClusterSlots) {
  FindMasters();
  abilities_.has_field_expiries = true;
  for (const auto &[id, endpoint] : nodes_) {
    sink::CommandAbilities const abilities = pg::ValueOrThrow(sink::AskAbilities(ConnectionOf(id)));
    RequireTransactions(ConnectionOf(id));
    if (!abilities.has_field_expiries) abilities_.has_field_expiries = false;
  }
}

std::string ClusterSender::PositionKey(size_t slot) const { return PositionKeyOf(migration_, tags_[slot]); }

// Which master has which slot by now.
void ClusterSender::FindMasters() {
  redis::ClusterTopology topology;
  {
    pg::ExternalDescriptor descriptor;
    topology = pg::ValueOrThrow(redis::FindTopology(deployment_, waiter_));
  }
  std::map<std::string, redis::Endpoint> nodes;
  owners_.assign(redis::kClusterSlots, "");
  for (const redis::ClusterShard &shard : topology.shards) {
    if (!nodes_.empty() && nodes_.count(shard.master.id) == 0)
      throw pg::Failure(ERRCODE_CONNECTION_FAILURE, "another node of the cluster has become a master",
                        "It is not known which batches it has.");
    nodes[shard.master.id] = shard.master.endpoint;
    for (size_t slot = 0; slot < redis::kClusterSlots; ++slot)
      if (shard.slots.test(slot)) owners_[slot] = shard.master.id;
  }
  nodes_ = std::move(nodes);
}

redis::Connection &ClusterSender::ConnectionOf(const std::string &master) {
  std::unique_ptr<Master> &found = masters_[master];
  if (found == nullptr) {
    auto opened = std::make_unique<Master>();
    opened->connection = pg::ValueOrThrow(redis::OpenNode(deployment_, nodes_.at(master), waiter_));
    found = std::move(opened);
  }
  return *found->connection;
}

std::map<std::string, std::vector<size_t>> ClusterSender::ByMaster(const redis::Slots &slots) {
  std::map<std::string, std::vector<size_t>> found;
  for (size_t slot = 0; slot < redis::kClusterSlots; ++slot) {
    if (!slots.test(slot)) continue;
    if (owners_[slot].empty())
      refusal_.emplace(ERRCODE_CANNOT_CONNECT_NOW,
                       "no node of the cluster serves slot " + std::to_string(slot));
    else
      found[owners_[slot]].push_back(slot);
  }
  return found;
}

// Calls pass(left), which removes those slots that are done from `left`, until none is. Slots that are being
// moved have their turn when they are at their new place.
template <typename Pass>
void ClusterSender::UntilDone(redis::Slots left, Pass pass) {
  for (int64 until_ms = pg::MonotonicMs() + kMostMoveMs; left.any();) {
    size_t const before = left.count();
    pass(left);
    if (left.none()) return;
    if (left.count() < before) until_ms = pg::MonotonicMs() + kMostMoveMs;
    if (pg::MonotonicMs() >= until_ms) throw pg::Failure(*refusal_);
    pg::Sleep(kLookAgainMs);
    FindMasters();
  }
}

// Whether a reply says that a slot is elsewhere, or not to be had for a moment. Errors: any other error
// reply.
bool ClusterSender::Leave(const redis::Connection &connection, const redis::Reply &reply) {
  if (!reply.IsError()) return false;
  pg::Failure const failure(connection.ToError(reply));
  if (failure.sqlstate() != ERRCODE_CANNOT_CONNECT_NOW) throw pg::Failure(failure);
  refusal_.emplace(failure);
  return true;
}

// ask(connection, position key) queues one command for each slot; take(connection, slot, reply) gets what is
// no error.
template <typename Ask, typename Take>
void ClusterSender::AskEach(redis::Slots &left, Ask ask, Take take) {
  auto const slots = ByMaster(left);
  for (const auto &[master, of_master] : slots) {
    redis::Connection &connection = ConnectionOf(master);
    for (size_t const slot : of_master) ask(connection, PositionKey(slot));
    connection.Flush();
  }
  for (const auto &[master, of_master] : slots) {
    redis::Connection &connection = ConnectionOf(master);
    for (size_t const slot : of_master) {
      redis::Reply const reply = pg::ValueOrThrow(connection.Receive());
      if (Leave(connection, reply)) continue;
      take(connection, slot, reply);
      left.reset(slot);
    }
  }
}

std::map<size_t, ReverseSender::Position> ClusterSender::FetchPositions() {
  std::map<size_t, Position> found;
  UntilDone(~redis::Slots(), [&](redis::Slots &left) {
    AskEach(
        left,
        [](redis::Connection &connection, const std::string &key) {
          connection.Append({"GET", key});
        },
        [&](const redis::Connection &connection, size_t slot, const redis::Reply &reply) {
          auto const text = TextOf(connection, reply);
          positions_[slot] = text.value_or(Bytes());
          if (text) found[slot] = PositionOf(*text);
        });
  });
  return found;
}

// A process that has seen another position gives its transaction up.
void ClusterSender::End(int64 batch, const redis::Slots &slots) {
  std::string const mark = MarkOf(batch);
  UntilDone(slots, [&](redis::Slots &left) {
    AskEach(
        left,
        [&](redis::Connection &connection, const std::string &key) {
          connection.Append({"SET", key, mark});
        },
        [&](const redis::Connection &connection, size_t slot, const redis::Reply &reply) {
          if (!reply.IsStatus()) throw pg::Failure(connection.UnknownReply("SET"));
          positions_[slot] = mark;
        });
  });
}

void ClusterSender::Send(int64 batch) {
  std::string const mark = MarkOf(batch);
  UntilDone(slots(), [&](redis::Slots &left) { SendChains(mark, left); });
  Clear();
}

// All masters at once, as long as any has a slot that is left.
void ClusterSender::SendChains(const std::string &mark, redis::Slots &left) {
  std::map<std::string, Chain> chains;
  for (auto &[master, of_master] : ByMaster(left))
    chains[master] = {&ConnectionOf(master), std::move(of_master)};
  while (!chains.empty()) {
    for (auto &[master, chain] : chains) Append(chain, mark);
    for (auto chain = chains.begin(); chain != chains.end();) {
      bool const goes_on = Receive(chain->second, mark, left);
      // What it watches would be in the way of another transaction.
      if (!goes_on && chain->second.next < chain->second.slots.size()) masters_.erase(chain->first);
      chain = goes_on ? std::next(chain) : chains.erase(chain);
    }
  }
}

// Queues the transaction of the next slot, if its position is watched, and watches the one after it.
void ClusterSender::Append(Chain &chain, const std::string &mark) {
  size_t watched = chain.next;
  if (chain.is_watched) {
    size_t const slot = chain.slots[chain.next];
    chain.names = ReverseSender::Append(*chain.connection, PositionKey(slot), mark, commands_[slot]);
    ++watched;
  }
  if (watched < chain.slots.size()) {
    std::string const key = PositionKey(chain.slots[watched]);
    chain.connection->Append({"WATCH", key});
    chain.connection->Append({"GET", key});
  }
  chain.connection->Flush();
}

// Takes the replies to that. False: the chain is at its end, or cannot go on.
bool ClusterSender::Receive(Chain &chain, const std::string &mark, redis::Slots &left) {
  if (chain.is_watched) {
    size_t const slot = chain.slots[chain.next++];
    chain.is_watched = false;
    auto refused = ReverseSender::Receive(*chain.connection, PositionKey(slot), chain.names);
    if (!refused) {
      positions_[slot] = mark;
      commands_.erase(slot);
      left.reset(slot);
    } else if (refused->sqlstate() == ERRCODE_CANNOT_CONNECT_NOW) {
      refusal_.emplace(*refused);
    } else {
      throw pg::Failure(*refused);
    }
  }
  return chain.next < chain.slots.size() && TakeWatch(chain);
}

// False: the slot is not there now. Errors: 40001.
bool ClusterSender::TakeWatch(Chain &chain) {
  size_t const slot = chain.slots[chain.next];
  redis::Reply const watched = pg::ValueOrThrow(chain.connection->Receive());
  bool const is_left = Leave(*chain.connection, watched);
  redis::Reply const position = pg::ValueOrThrow(chain.connection->Receive());
  if (is_left || Leave(*chain.connection, position)) return false;
  if (TextOf(*chain.connection, position).value_or(Bytes()) != positions_[slot])
    throw pg::Failure(ERRCODE_T_R_SERIALIZATION_FAILURE,
                      "another connection has written " + PositionKey(slot) + " since the last batch",
                      "It is of a reverse feed that has ended, or of another server's; or a node of the "
                      "cluster has lost the batch.");
  return chain.is_watched = true;
}

}  // namespace prm
