#include "reverse/cluster_sender.h"

#include <charconv>

#include "core/position_key.h"
#include "pg/background.h"
#include "pg/spi.h"
#include "sink/command_abilities.h"

namespace prm {

namespace {

constexpr long kLookAgainMs = 20;
constexpr int64 kHoldMs = 200;         // until a slot that takes no transaction is tried again
constexpr size_t kMostLinks = 8;       // to a master
constexpr size_t kSlotsOfALink = 8;    // of a batch; more are worth another one
constexpr size_t kMostImporters = 16;  // connections

// Where "ASK 3999 127.0.0.1:6381" leads to; a node may leave out its host. None: nowhere, or its text quotes
// a secret, which would get into DNS and messages.
std::optional<redis::Endpoint> AskedNode(const redis::Connection &from, Bytes text) {
  size_t const host = text.find(' ', 4), colon = text.rfind(':');
  if (text.substr(0, 4) != "ASK " || from.gate().Quotes(text) || host == Bytes::npos ||
      colon == Bytes::npos || colon < host)
    return std::nullopt;
  redis::Endpoint node;
  node.host = std::string(text.substr(host + 1, colon - host - 1));
  node.named = from.named();
  auto const [end, failed] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), node.port);
  if (failed != std::errc() || end != text.data() + text.size() || node.port < 1 || node.port > 65535)
    return std::nullopt;
  if (node.host.empty() || node.host == "?") {
    node.host = from.address().substr(0, from.address().rfind(':'));
    if (node.host.front() == '[') node.host = node.host.substr(1, node.host.size() - 2);
  }
  return redis::IsHost(node.host) ? std::optional(node) : std::nullopt;
}

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
    redis::Connection &connection = *LinkOf(id, 0)->connection;
    sink::CommandAbilities const abilities = pg::ValueOrThrow(sink::AskAbilities(connection));
    RequireTransactions(connection);
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

std::unique_ptr<ClusterSender::Link> &ClusterSender::LinkOf(const std::string &master, size_t number) {
  std::vector<std::unique_ptr<Link>> &links = links_[master];
  if (links.empty()) links.resize(kMostLinks);  // chains refer to them
  std::unique_ptr<Link> &found = links[number];
  if (found == nullptr) {
    auto opened = std::make_unique<Link>();
    opened->connection = pg::ValueOrThrow(redis::OpenNode(deployment_, nodes_.at(master), waiter_));
    found = std::move(opened);
  }
  return found;
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

// Calls pass(left), which removes those slots that are done from `left`, until none is left, or
// may_stay(ms without progress) is true. Slots that are being moved have their turn when they are at their
// new place.
template <typename Pass, typename MayStay>
void ClusterSender::UntilDone(redis::Slots &left, Pass pass, MayStay may_stay) {
  for (int64 progress_ms = pg::MonotonicMs(); left.any();) {
    size_t const before = left.count();
    pass(left);
    int64 const now_ms = pg::MonotonicMs();
    if (left.count() < before) progress_ms = now_ms;
    if (left.none() || may_stay(now_ms - progress_ms)) return;
    if (now_ms - progress_ms >= kMostMoveMs) throw pg::Failure(*refusal_);
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

// The node to which a reply leads for a key that its slot's master does not have, or no longer; nullptr: it
// leads to none that can be reached.
redis::Connection *ClusterSender::ImporterOf(const redis::Connection &from, const redis::Reply &reply) {
  auto const node = AskedNode(from, reply.ErrorText());
  if (!node) return nullptr;
  std::string const address = node->host + ":" + std::to_string(node->port);
  if (importers_.count(address) == 0 && importers_.size() >= kMostImporters) importers_.clear();
  std::unique_ptr<Link> &found = importers_[address];
  if (found == nullptr) {
    auto link = std::make_unique<Link>();
    auto opened = redis::OpenNode(deployment_, *node, waiter_);
    if (!opened.ok()) {
      refusal_.emplace(opened.error());
      return nullptr;
    }
    link->connection = std::move(opened.value());
    found = std::move(link);
  }
  return found->connection.get();
}

// ask(connection, position key) queues one command for each slot; take(connection, slot, reply) gets what is
// no error. Of a slot that is being moved the node to which it goes is asked, if that has the key, or nobody.
template <typename Ask, typename Take>
void ClusterSender::AskEach(redis::Slots &left, Ask ask, Take take) {
  auto const slots = ByMaster(left);
  for (const auto &[master, of_master] : slots) {
    redis::Connection &connection = *LinkOf(master, 0)->connection;
    for (size_t const slot : of_master) ask(connection, PositionKey(slot));
    connection.Flush();
  }
  for (const auto &[master, of_master] : slots) {
    redis::Connection &connection = *LinkOf(master, 0)->connection;
    for (size_t const slot : of_master) {
      redis::Connection *answering = &connection;
      redis::Reply reply = pg::ValueOrThrow(connection.Receive());
      if (Leave(connection, reply)) {
        answering = ImporterOf(connection, reply);
        if (answering == nullptr) continue;
        answering->Append({"ASKING"});
        ask(*answering, PositionKey(slot));
        redis::Reply const asking = pg::ValueOrThrow(answering->Receive());
        bool const is_refused = Leave(*answering, asking);
        reply = pg::ValueOrThrow(answering->Receive());
        if (is_refused || Leave(*answering, reply)) continue;
      }
      take(*answering, slot, reply);
      left.reset(slot);
    }
  }
}

std::map<size_t, ReverseSender::Position> ClusterSender::FetchPositions(const redis::Slots &needed) {
  std::map<size_t, Position> found;
  redis::Slots left = ~redis::Slots();
  UntilDone(
      left,
      [&](redis::Slots &some) {
        AskEach(
            some,
            [](redis::Connection &connection, const std::string &key) {
              connection.Append({"GET", key});
            },
            [&](const redis::Connection &connection, size_t slot, const redis::Reply &reply) {
              auto const text = TextOf(connection, reply);
              positions_[slot] = text.value_or(Bytes());
              if (text) found[slot] = PositionOf(*text);
            });
      },
      [&](int64) { return (left & needed).none(); });
  return found;
}

// A process that has seen another position gives its transaction up.
void ClusterSender::End(int64 batch, const redis::Slots &slots) {
  std::string const mark = MarkOf(batch);
  redis::Slots left = slots;
  UntilDone(
      left,
      [&](redis::Slots &some) {
        AskEach(
            some,
            [&](redis::Connection &connection, const std::string &key) {
              connection.Append({"SET", key, mark});
            },
            [&](const redis::Connection &connection, size_t slot, const redis::Reply &reply) {
              if (!reply.IsStatus()) throw pg::Failure(connection.UnknownReply("SET"));
              positions_[slot] = mark;
            });
      },
      [](int64) { return false; });
}

void ClusterSender::RemovePositions(const redis::Slots &slots) {
  redis::Slots left = slots;
  AskEach(
      left,
      [](redis::Connection &connection, const std::string &key) {
        connection.Append({"UNLINK", key});
      },
      [&](const redis::Connection &, size_t slot, const redis::Reply &) { positions_[slot].clear(); });
}

redis::Slots ClusterSender::held() const {
  return held_.any() && pg::MonotonicMs() < held_until_ms_ ? held_ : redis::Slots();
}

std::string ClusterSender::WhyHeld() const {
  return "changes of slots " + redis::SlotsToText(held_) +
         " of the cluster wait: " + (refusal_ ? refusal_->message() : "");
}

// Redis refuses a transaction in a slot that is being moved, unless the node has all its keys, and nobody
// knows for how long. The others do not wait for it.
redis::Slots ClusterSender::Send(int64 batch) {
  std::string const mark = MarkOf(batch);
  redis::Slots const all = slots();
  redis::Slots left = all;
  if ((all & held_).any()) FindMasters();
  UntilDone(
      left, [&](redis::Slots &some) { SendChains(mark, some); },
      [&](int64 waited_ms) {
        return (left & ~held_).none() || (waited_ms >= kPatienceMs && (left | held_).count() <= kMostHeld);
      });
  Clear();
  held_ = (held_ & ~all) | left;
  if (left.any()) held_until_ms_ = pg::MonotonicMs() + kHoldMs;
  return left;
}

std::vector<ClusterSender::Chain> ClusterSender::MakeChains(const redis::Slots &slots) {
  std::vector<Chain> chains;
  for (const auto &[master, of_master] : ByMaster(slots)) {
    size_t const first = chains.size();
    size_t const count = std::min(kMostLinks, (of_master.size() + kSlotsOfALink - 1) / kSlotsOfALink);
    for (size_t i = 0; i < count; ++i) chains.push_back({&LinkOf(master, i)});
    for (size_t i = 0; i < of_master.size(); ++i) chains[first + i % count].slots.push_back(of_master[i]);
  }
  return chains;
}

// All connections at once, as long as any has a slot that is left.
void ClusterSender::SendChains(const std::string &mark, redis::Slots &left) {
  std::vector<Chain> chains = MakeChains(left);
  while (!chains.empty()) {
    for (Chain &chain : chains) Append(chain, mark);
    chains.erase(std::remove_if(chains.begin(), chains.end(),
                                [&](Chain &chain) { return !Receive(chain, mark, left); }),
                 chains.end());
  }
}

// Queues the transaction of the next slot, if its position is watched, and watches the one after it.
void ClusterSender::Append(Chain &chain, const std::string &mark) {
  redis::Connection &connection = chain.connection();
  size_t watched = chain.next;
  if (chain.is_watched) {
    size_t const slot = chain.slots[chain.next];
    chain.names = ReverseSender::Append(connection, PositionKey(slot), mark, commands_[slot]);
    ++watched;
  }
  if (watched < chain.slots.size()) {
    std::string const key = PositionKey(chain.slots[watched]);
    connection.Append({"WATCH", key});
    connection.Append({"GET", key});
  }
  connection.Flush();
}

// Takes the replies to that. False: the chain is at its end, or cannot go on.
bool ClusterSender::Receive(Chain &chain, const std::string &mark, redis::Slots &left) {
  if (chain.is_watched) {
    size_t const slot = chain.slots[chain.next++];
    chain.is_watched = false;
    auto refused = ReverseSender::Receive(chain.connection(), PositionKey(slot), chain.names);
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
  return chain.next < chain.slots.size() && TakeWatch(chain) && chain.next < chain.slots.size();
}

// False: the chain cannot go on. A slot that is not there now is left out. Errors: 40001.
bool ClusterSender::TakeWatch(Chain &chain) {
  redis::Connection &connection = chain.connection();
  size_t const slot = chain.slots[chain.next];
  redis::Reply const watched = pg::ValueOrThrow(connection.Receive());
  bool const is_left = Leave(connection, watched);
  redis::Reply const position = pg::ValueOrThrow(connection.Receive());
  if (is_left || Leave(connection, position)) {
    ++chain.next;
    // The keys that it watches would make another transaction fail.
    if (!is_left) chain.link->reset();
    return is_left;
  }
  if (TextOf(connection, position).value_or(Bytes()) != positions_[slot])
    throw pg::Failure(ERRCODE_T_R_SERIALIZATION_FAILURE,
                      "another connection has written " + PositionKey(slot) + " since the last batch",
                      "It is of a reverse feed that has ended, or of another server's; or a node of the "
                      "cluster has lost the batch.");
  return chain.is_watched = true;
}

}  // namespace prm
