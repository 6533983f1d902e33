#include "source/cluster_scan.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/printable.h"

namespace prm::source {

namespace {

using redis::Slots;

constexpr size_t kNodeIdDigits = 40;

// So many nodes are noted. A cluster is not taken for another one unless all of them are gone.
constexpr size_t kMostMembers = 8;

bool TakePrefix(Bytes& text, Bytes prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Up to the next blank, or all of it.
Bytes TakeWord(Bytes& text) {
  const size_t end = std::min(text.find(' '), text.size());
  const Bytes word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

}  // namespace

std::string ClusterPosition::ToString() const {
  std::string text = "cluster of=";
  for (size_t i = 0; i < members.size(); ++i) text += (i == 0 ? "" : ",") + members[i];
  text += " done=" + redis::SlotsToText(done);
  if (!node.empty()) text += " node=" + node + " slots=" + redis::SlotsToText(slots);
  if (!scan.empty()) text += " " + scan;
  return text;
}

Result<ClusterPosition> ClusterPosition::Parse(Bytes text) {
  const Error invalid{
      ErrorCode::kInvalidArgument, "invalid position in a cluster \"" + Printable(text) + "\"", {}, {}};
  ClusterPosition position;
  Bytes rest = text;
  if (!TakePrefix(rest, "cluster of=")) return invalid;
  for (Bytes ids = TakeWord(rest); !ids.empty(); ids.remove_prefix(std::min(kNodeIdDigits + 1, ids.size()))) {
    if (ids.size() < kNodeIdDigits || (ids.size() > kNodeIdDigits && ids[kNodeIdDigits] != ','))
      return invalid;
    position.members.emplace_back(ids.substr(0, kNodeIdDigits));
  }
  if (!TakePrefix(rest, " done=")) return invalid;
  const Result<Slots> done = redis::SlotsFromText(TakeWord(rest));
  if (!done.ok()) return invalid;
  position.done = done.value();
  if (rest.empty()) return position;
  if (!TakePrefix(rest, " node=")) return invalid;
  position.node = TakeWord(rest);
  if (position.node.size() != kNodeIdDigits || !TakePrefix(rest, " slots=")) return invalid;
  const Result<Slots> slots = redis::SlotsFromText(TakeWord(rest));
  if (!slots.ok()) return invalid;
  position.slots = slots.value();
  if (!rest.empty()) {
    rest.remove_prefix(1);
    if (!ScanPosition::Parse(rest).ok()) return invalid;
    position.scan = rest;
  }
  return position;
}

Result<std::optional<uint64_t>> CountClusterKeys(const redis::Deployment& deployment,
                                                 const redis::ClusterTopology& topology,
                                                 redis::Waiter& waiter) {
  uint64_t keys = 0;
  for (const redis::ClusterShard& shard : topology.shards) {
    auto connection = redis::OpenNode(deployment, shard.master.endpoint, waiter);
    if (!connection.ok()) return connection.error();
    const Result<redis::Reply> size = connection.value()->Command({"DBSIZE"});
    if (!size.ok() && size.error().code == ErrorCode::kPermissionDenied) return std::optional<uint64_t>();
    if (!size.ok()) return size.error();
    if (size.value().IsInteger()) keys += static_cast<uint64_t>(size.value().AsInteger());
  }
  return std::optional<uint64_t>(keys);
}

Result<std::unique_ptr<ClusterScan>> ClusterScan::Open(const redis::Deployment& deployment,
                                                       const ScanOptions& options, KeyFilter& filter,
                                                       const std::string& position, redis::Waiter& waiter,
                                                       const Slots& slots) {
  std::unique_ptr<ClusterScan> source(new ClusterScan(deployment, options, filter, waiter));
  source->options_.databases = {0};
  Result<redis::ClusterTopology> topology = redis::FindTopology(deployment, waiter);
  if (!topology.ok()) return topology.error();
  source->topology_ = std::move(topology.value());
  PRM_RETURN_IF_ERROR(source->Start(position, slots));
  return source;
}

Status ClusterScan::Start(const std::string& position, const Slots& slots) {
  if (!position.empty()) {
    Result<ClusterPosition> parsed = ClusterPosition::Parse(position);
    const bool was_single_server = !parsed.ok() && ScanPosition::Parse(position).ok();
    if (!parsed.ok() && !was_single_server) return parsed.error();
    if (parsed.ok() && HasMember(parsed.value())) {
      position_ = std::move(parsed.value());
      NoteMembers();
      return {};
    }
    restarted_ = true;
  }
  NoteMembers();
  position_.done = ~slots;
  if (!slots.all()) return {};
  const Result<std::optional<uint64_t>> keys = CountClusterKeys(deployment_, topology_, waiter_);
  if (!keys.ok()) return keys.error();
  key_count_ = keys.value();
  return {};
}

void ClusterScan::NoteMembers() {
  position_.members.clear();
  for (const redis::ClusterShard& shard : topology_.shards) {
    if (position_.members.size() < kMostMembers) position_.members.push_back(shard.master.id);
  }
}

bool ClusterScan::HasMember(const ClusterPosition& position) const {
  return std::any_of(position.members.begin(), position.members.end(),
                     [this](const std::string& id) { return topology_.ShardOf(id) != nullptr; });
}

Result<bool> ClusterScan::Next(Batch& batch) {
  for (;;) {
    if (!scan_) {
      if (position_.done.all()) return false;
      PRM_RETURN_IF_ERROR(BeginNode());
    }
    const Result<bool> next = scan_->Next(batch);
    if (!next.ok()) {
      if (next.error().code != ErrorCode::kMoved) return next.error();
      PRM_RETURN_IF_ERROR(LeaveSlot(next.error()));
      continue;
    }
    if (next.value()) {
      position_.scan = batch.position;
    } else {
      PRM_RETURN_IF_ERROR(FinishNode());
      batch.entries.clear();
      batch.bytes = 0;
      batch.goes_beyond = false;
    }
    batch.position = position_.ToString();
    return true;
  }
}

// Opens the node that was being read if it still serves all that it was read for; another one otherwise.
Status ClusterScan::BeginNode() {
  if (!position_.node.empty()) {
    const redis::ClusterShard* shard = topology_.ShardOf(position_.node);
    const redis::ClusterNode* node = shard == nullptr ? nullptr : NodeToRead(*shard);
    if (node != nullptr && node->id == position_.node) {
      PRM_RETURN_IF_ERROR(OpenNode(*node));
      const Result<Slots> stable = StableSlots();
      if (!stable.ok()) return stable.error();
      if ((position_.slots & ~stable.value()).none()) return OpenScan();
    }
    if (!position_.scan.empty()) repeated_slots_ += position_.slots.count();
    CloseNode();
  }
  const redis::ClusterTopology topology = topology_;  // changes as nodes tell what they know
  std::string unread;
  Slots served;
  for (const redis::ClusterShard& shard : topology.shards) {
    served |= shard.slots;
    if ((shard.slots & ~position_.done).none()) continue;
    const redis::ClusterNode* node = NodeToRead(shard);
    if (node == nullptr) {
      return Error{
          ErrorCode::kUnavailable,
          "no node that could be read serves slots " + redis::SlotsToText(shard.slots) + " of the cluster",
          {},
          {}};
    }
    PRM_RETURN_IF_ERROR(OpenNode(*node));
    const Result<Slots> stable = StableSlots();
    if (!stable.ok()) return stable.error();
    position_.slots = stable.value() & ~position_.done;
    if (position_.slots.any()) return OpenScan();
    CloseNode();
  }
  const bool all_served = (position_.done | served).all();
  return Error{ErrorCode::kUnavailable,
               "slots " + redis::SlotsToText(all_served ? ~position_.done : ~(position_.done | served)) +
                   " of the cluster are " + (all_served ? "being moved" : "served by no node"),
               {},
               all_served ? "The run reads them when the move is complete." : ""};
}

Status ClusterScan::OpenNode(const redis::ClusterNode& node) {
  node_ = node;
  position_.node = node.id;
  auto connection = redis::OpenNode(deployment_, node.endpoint, waiter_);
  if (!connection.ok()) return connection.error();
  connection_ = std::move(connection.value());
  if (deployment_.read_from != redis::ReadFrom::kReplica) return {};
  PRM_RETURN_IF_ERROR(redis::CheckRole(*connection_, redis::ReadFrom::kReplica, deployment_.stale_replica));
  const Result<redis::Reply> readonly = connection_->Command({"READONLY"});
  return readonly.ok() ? Status() : Status(readonly.error());
}

Status ClusterScan::OpenScan() {
  filter_.wanted = position_.slots;
  auto scan = ScanSource::Open(*connection_, options_, filter_, position_.scan);
  if (!scan.ok()) return scan.error();
  scan_ = std::move(scan.value());
  if (scan_->restarted()) repeated_slots_ += position_.slots.count();
  return {};
}

// The slots that the node serves, as it says itself, and that are not being moved, as its master says.
Result<Slots> ClusterScan::StableSlots() {
  Result<redis::ClusterTopology> view = redis::FetchTopology(*connection_, node_.endpoint, is_tls());
  if (!view.ok()) return view.error();
  topology_ = std::move(view.value());
  const redis::ClusterShard* shard = topology_.ShardOf(node_.id);
  if (shard == nullptr) return Slots();
  const bool is_master = shard->master.id == node_.id;
  if (!is_master && deployment_.read_from != redis::ReadFrom::kReplica) return Slots();
  std::unique_ptr<redis::Connection> to_master;
  if (!is_master) {
    auto opened = redis::OpenNode(deployment_, shard->master.endpoint, waiter_);
    if (!opened.ok()) return opened.error();
    to_master = std::move(opened.value());
  }
  const Slots served = shard->slots;
  const Result<Slots> moving = redis::FetchMovingSlots(is_master ? *connection_ : *to_master);
  if (!moving.ok()) return moving.error();
  return served & ~moving.value();
}

const redis::ClusterNode* ClusterScan::NodeToRead(const redis::ClusterShard& shard) const {
  if (deployment_.read_from != redis::ReadFrom::kReplica) {
    return shard.master.is_online ? &shard.master : nullptr;
  }
  const redis::ClusterNode* chosen = nullptr;
  for (const redis::ClusterNode& replica : shard.replicas) {
    if (!replica.is_online) continue;
    if (chosen == nullptr || replica.id == position_.node) chosen = &replica;
  }
  return chosen;
}

// Goes on without the slot that a key was moved with: "MOVED 3999 127.0.0.1:6381".
Status ClusterScan::LeaveSlot(const Error& moved) {
  const size_t at = moved.detail.find(' ');
  size_t slot = redis::kClusterSlots;
  if (at != std::string::npos) {
    std::from_chars(moved.detail.data() + at + 1, moved.detail.data() + moved.detail.size(), slot);
  }
  if (slot >= redis::kClusterSlots || !position_.slots[slot]) {
    return Error{ErrorCode::kProtocol, moved.message, moved.detail, {}};
  }
  position_.slots.reset(slot);
  ++repeated_slots_;
  scan_.reset();
  // The connection has replies under way to what is not wanted any more.
  PRM_RETURN_IF_ERROR(OpenNode(redis::ClusterNode(node_)));
  return OpenScan();
}

// Notes what the node has served from the start of its scan to now. What is left is another node's.
Status ClusterScan::FinishNode() {
  const Result<Slots> stable = StableSlots();
  if (!stable.ok()) return stable.error();
  const Slots done = position_.slots & stable.value();
  repeated_slots_ += (position_.slots & ~done).count();
  position_.done |= done;
  CloseNode();
  return {};
}

void ClusterScan::CloseNode() {
  scan_.reset();
  connection_.reset();
  position_.node.clear();
  position_.slots.reset();
  position_.scan.clear();
}

}  // namespace prm::source
