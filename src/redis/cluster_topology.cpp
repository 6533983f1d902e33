#include "redis/cluster_topology.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "redis/error_words.h"

namespace prm::redis {

namespace {

bool IsRefusal(const Error& error) {
  return error.code == ErrorCode::kPermissionDenied || error.code == ErrorCode::kServerError;
}

bool IsNodeId(const Connection& from, Bytes text) {
  return text.size() == 40 && !from.gate().Quotes(text) &&
         text.find_first_not_of("0123456789abcdef") == Bytes::npos;
}

// Counts the ranges of a whole reply. More ranges than slots are invalid, since a slot has one node.
class Ranges {
 public:
  bool Add(const ReplyView& first, const ReplyView& last, Slots& slots) {
    const std::optional<int64_t> begin = first.Integer();
    const std::optional<int64_t> end = last.Integer();
    if (!begin || !end || *begin < 0 || *end < *begin || *end >= static_cast<int64_t>(kClusterSlots)) {
      return false;
    }
    for (auto slot = static_cast<size_t>(*begin); slot <= static_cast<size_t>(*end); ++slot) {
      if (seen_[slot]) return false;
      seen_.set(slot);
      slots.set(slot);
    }
    return true;
  }

 private:
  Slots seen_;
};

// False if they are not valid host and port. A host that is NULL, empty or "?" is unknown to the node, which
// is then reached at the address used so far.
bool ParseEndpoint(const Connection& from, const ReplyView& host, const ReplyView& port,
                   const Endpoint& asked, Endpoint& endpoint) {
  const int64_t number = port.Integer().value_or(0);
  const Bytes name = host.String().value_or("?");
  if (number < 1 || number > 65535) return false;
  const bool is_known = !name.empty() && name != "?";
  endpoint.host = is_known ? std::string(name) : asked.host;
  endpoint.named = is_known ? from.named() : asked.named;
  endpoint.port = static_cast<int>(number);
  return !is_known || (IsHost(name) && !from.gate().Quotes(name));
}

// A reply of names and values.
class Fields {
 public:
  explicit Fields(const ReplyView& list) {
    for (size_t i = 0; i + 1 < list.size(); i += 2) {
      if (const auto name = list.element(i).String()) fields_.emplace(*name, list.element(i + 1));
    }
  }
  std::optional<ReplyView> Get(const char* name) const {
    const auto found = fields_.find(name);
    return found == fields_.end() ? std::nullopt : std::optional(found->second);
  }
  std::string Text(const char* name) const {
    const auto value = Get(name);
    return std::string(value ? value->String().value_or("") : "");
  }

 private:
  std::map<std::string, ReplyView> fields_;
};

bool ParseShardNode(const Connection& from, const ReplyView& reply, const Endpoint& asked, bool tls,
                    ClusterNode& node, bool& is_master) {
  const Fields fields(reply);
  auto port = fields.Get(tls ? "tls-port" : "port");
  // Without tls-cluster nodes do not announce their TLS ports; failing to connect to the wrong port explains
  // more than finding no node.
  if (!port) port = fields.Get(tls ? "port" : "tls-port");
  const auto endpoint = fields.Get("endpoint");
  if (!port || !endpoint || !ParseEndpoint(from, *endpoint, *port, asked, node.endpoint)) return false;
  node.id = fields.Text("id");
  const std::string health = fields.Text("health");
  node.is_online = health.empty() || health == "online";
  is_master = fields.Text("role") == "master";
  return IsNodeId(from, node.id);
}

// redis.io/commands/cluster-shards. After a failover the old master may still be listed as a master; the one
// that is online has the slots.
bool ParseShards(const Connection& from, const ReplyView& reply, const Endpoint& asked, bool tls,
                 ClusterTopology& topology) {
  if (!reply.IsArray()) return false;
  Ranges all;
  for (size_t i = 0; i < reply.size(); ++i) {
    const Fields fields(reply.element(i));
    const auto ranges = fields.Get("slots");
    const auto nodes = fields.Get("nodes");
    if (!ranges || !nodes) return false;
    ClusterShard shard;
    for (size_t j = 0; j + 1 < ranges->size(); j += 2) {
      if (!all.Add(ranges->element(j), ranges->element(j + 1), shard.slots)) return false;
    }
    for (size_t j = 0; j < nodes->size(); ++j) {
      ClusterNode node;
      bool is_master = false;
      if (!ParseShardNode(from, nodes->element(j), asked, tls, node, is_master)) continue;
      if (!is_master) {
        shard.replicas.push_back(std::move(node));
      } else if (shard.master.id.empty() || !shard.master.is_online) {
        shard.master = std::move(node);
      }
    }
    if (shard.slots.any() && !shard.master.id.empty()) topology.shards.push_back(std::move(shard));
  }
  return true;
}

// redis.io/commands/cluster-slots: start, end, then nodes (host, port, id, …), the master first.
bool ParseSlots(const Connection& from, const ReplyView& reply, const Endpoint& asked,
                ClusterTopology& topology) {
  if (!reply.IsArray()) return false;
  Ranges all;
  std::map<std::string, ClusterShard> by_master;
  for (size_t i = 0; i < reply.size(); ++i) {
    const ReplyView range = reply.element(i);
    if (range.size() < 3) return false;
    ClusterShard shard;
    for (size_t j = 2; j < range.size(); ++j) {
      const ReplyView node = range.element(j);
      ClusterNode parsed;
      parsed.id = node.element(2).String().value_or("");
      if (!IsNodeId(from, parsed.id) ||
          !ParseEndpoint(from, node.element(0), node.element(1), asked, parsed.endpoint)) {
        return false;
      }
      if (j == 2) {
        shard.master = std::move(parsed);
      } else {
        shard.replicas.push_back(std::move(parsed));
      }
    }
    ClusterShard& whole = by_master.emplace(shard.master.id, shard).first->second;
    if (!all.Add(range.element(0), range.element(1), whole.slots)) return false;
  }
  for (auto& [id, shard] : by_master) topology.shards.push_back(std::move(shard));
  return true;
}

// The line of the node that wrote the reply to CLUSTER NODES: "<id> <address> myself,master - <ping> <pong>
// <epoch> …".
uint64_t EpochOf(Bytes nodes) {
  size_t at = nodes.find(" myself,");
  for (int field = 0; field < 4 && at != Bytes::npos; ++field) at = nodes.find(' ', at + 1);
  uint64_t epoch = 0;
  if (at != Bytes::npos) std::from_chars(nodes.data() + at + 1, nodes.data() + nodes.size(), epoch);
  return epoch;
}

size_t FirstSlot(const Slots& slots) {
  size_t slot = 0;
  while (slot < kClusterSlots && !slots[slot]) ++slot;
  return slot;
}

}  // namespace

const ClusterShard* ClusterTopology::ShardOf(const std::string& node_id) const {
  for (const ClusterShard& shard : shards) {
    if (shard.master.id == node_id) return &shard;
    for (const ClusterNode& replica : shard.replicas) {
      if (replica.id == node_id) return &shard;
    }
  }
  return nullptr;
}

const ClusterShard* ClusterTopology::ShardOfMaster(const std::vector<std::string>& node_ids) const {
  for (const std::string& id : node_ids) {
    for (const ClusterShard& shard : shards) {
      if (shard.master.id == id) return &shard;
    }
  }
  return nullptr;
}

Slots ClusterTopology::slots() const {
  Slots all;
  for (const ClusterShard& shard : shards) all |= shard.slots;
  return all;
}

Result<ClusterTopology> FetchTopology(Connection& connection, const Endpoint& asked, bool tls) {
  ClusterTopology topology;
  const Result<Reply> shards = connection.Command({"CLUSTER", "SHARDS"}, kLargeReply);
  if (!shards.ok() && !IsRefusal(shards.error())) return shards.error();
  if (shards.ok() && !ParseShards(connection, shards.value(), asked, tls, topology))
    return connection.UnknownReply("CLUSTER SHARDS");
  // Of a shard whose earlier master is away CLUSTER SHARDS may tell no slots, although its new master has
  // them: redis 7.4 src/cluster_legacy.c, addShardReplyForClusterShards.
  if (!topology.slots().all()) {
    const Result<Reply> slots = connection.Command({"CLUSTER", "SLOTS"}, kLargeReply);
    if (!slots.ok() && slots.error().detail.find(kNoCluster) != std::string::npos) {
      return Error{ErrorCode::kInvalidArgument,
                   "Redis at " + connection.address() + " is not a node of a cluster",
                   {},
                   "Drop the server's option cluster."};
    }
    if (!slots.ok() && !(shards.ok() && IsRefusal(slots.error()))) return slots.error();
    ClusterTopology by_slots;
    if (slots.ok() && !ParseSlots(connection, slots.value(), asked, by_slots))
      return connection.UnknownReply("CLUSTER SLOTS");
    if (by_slots.slots().count() > topology.slots().count()) topology = std::move(by_slots);
  }
  std::sort(topology.shards.begin(), topology.shards.end(),
            [](const auto& a, const auto& b) { return FirstSlot(a.slots) < FirstSlot(b.slots); });
  return topology;
}

Result<SlotMoves> FetchSlotMoves(Connection& connection) {
  SlotMoves moves;
  const Result<Reply> reply = connection.Command({"CLUSTER", "NODES"}, kLargeReply);
  if (!reply.ok() && IsRefusal(reply.error())) return moves;
  if (!reply.ok()) return reply.error();
  if (!reply.value().IsString()) return connection.UnknownReply("CLUSTER NODES");
  // redis.io/commands/cluster-nodes: the node's own line ends with "[77->-<id>]" for a slot that it hands
  // over and "[78-<-<id>]" for one that it takes over.
  const Bytes text = *reply.value().String();
  for (size_t at = text.find('['); at != Bytes::npos; at = text.find('[', at + 1)) {
    size_t slot = 0;
    const auto [end, error] = std::from_chars(text.data() + at + 1, text.data() + text.size(), slot);
    const Bytes rest = text.substr(static_cast<size_t>(end - text.data()), 3);
    if (error == std::errc() && slot < kClusterSlots && (rest == "->-" || rest == "-<-"))
      moves.under_way.set(slot);
  }
  moves.epoch = EpochOf(text);
  return moves;
}

}  // namespace prm::redis
