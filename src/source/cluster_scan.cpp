#include "source/cluster_scan.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/printable.h"

namespace prm::source {

namespace {

using redis::Slots;

constexpr size_t kNodeIdDigits = 40;

// A move may be given up between two answers of a node, but hardly so often before a node is finished.
constexpr int kMostContradictions = 10;

// The number of node ids to note. A cluster counts as another one only if all of them are gone.
constexpr size_t kMostMembers = 8;

bool TakePrefix(Bytes& text, Bytes prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// The text up to the next blank, or all of it.
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
  if (!node.empty())
    text += " node=" + node + " epoch=" + std::to_string(epoch) + " slots=" + redis::SlotsToText(slots);
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
  if (position.node.size() != kNodeIdDigits || !TakePrefix(rest, " epoch=")) return invalid;
  const Bytes epoch = TakeWord(rest);
  const auto [end, error] = std::from_chars(epoch.data(), epoch.data() + epoch.size(), position.epoch);
  if (error != std::errc() || end != epoch.data() + epoch.size()) return invalid;
  if (!TakePrefix(rest, " slots=")) return invalid;
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

Result<std::unique_ptr<ClusterScan>> ClusterScan::Open(const redis::Deployment& deployment,
                                                       const ScanOptions& options, KeyFilter& filter,
                                                       const std::string& position, redis::Waiter& waiter,
                                                       const Slots& slots) {
  std::unique_ptr<ClusterScan> source(new ClusterScan(deployment, options, filter, waiter));
  source->options_.databases = {0};
  PRM_RETURN_IF_ERROR(source->walk_.FindTopology());
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
  const Result<std::optional<uint64_t>> keys = walk_.CountKeys();
  if (!keys.ok()) return keys.error();
  key_count_ = keys.value();
  return {};
}

void ClusterScan::NoteMembers() {
  position_.members.clear();
  for (const redis::ClusterShard& shard : walk_.topology().shards) {
    if (position_.members.size() < kMostMembers) position_.members.push_back(shard.master.id);
  }
}

bool ClusterScan::HasMember(const ClusterPosition& position) const {
  return std::any_of(position.members.begin(), position.members.end(),
                     [this](const std::string& id) { return walk_.topology().ShardOf(id) != nullptr; });
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

// Reopens the node that was being read, for the slots that it still serves, or another one if there are none.
Status ClusterScan::BeginNode() {
  size_t lost = 0;
  if (!position_.node.empty()) {
    const Result<Slots> stable = walk_.Enter(position_.node);
    if (!stable.ok()) return stable.error();
    const Slots kept = Kept(stable.value());
    if (!position_.scan.empty()) lost = (position_.slots & ~kept).count();
    position_.slots = kept;
    if (kept.none()) CloseNode();
  }
  if (position_.node.empty()) {
    const Result<Slots> imported = walk_.ImportedSlots();
    if (!imported.ok()) return imported.error();
    const Result<Slots> slots = walk_.EnterNext(position_.done, imported.value());
    if (!slots.ok()) return slots.error();
    position_.node = walk_.node_id();
    position_.slots = slots.value();
    position_.epoch = walk_.epoch();
  }
  PRM_RETURN_IF_ERROR(OpenScan());
  repeated_slots_ += lost;  // counted once, however many attempts there were
  return {};
}

// Returns those slots that the node has served since its scan began.
Slots ClusterScan::Kept(const Slots& stable) const {
  return walk_.epoch() == position_.epoch ? position_.slots & stable : Slots();
}

Status ClusterScan::OpenScan() {
  filter_.wanted = position_.slots;
  auto scan = ScanSource::Open(walk_.connection(), options_, filter_, position_.scan);
  if (!scan.ok()) return scan.error();
  scan_ = std::move(scan.value());
  if (scan_->restarted()) repeated_slots_ += position_.slots.count();
  return {};
}

// Continues without the slot of a moved key ("MOVED 3999 127.0.0.1:6381") and others that the node has lost
// since: a master has lost all of them after a failover.
Status ClusterScan::LeaveSlot(const Error& moved) {
  const size_t at = moved.detail.find(' ');
  size_t slot = redis::kClusterSlots;
  if (at != std::string::npos) {
    std::from_chars(moved.detail.data() + at + 1, moved.detail.data() + moved.detail.size(), slot);
  }
  if (slot >= redis::kClusterSlots || !position_.slots[slot]) {
    return Error{ErrorCode::kProtocol, moved.message, moved.detail, {}};
  }
  scan_.reset();
  PRM_RETURN_IF_ERROR(walk_.Reenter());
  const Result<Slots> stable = walk_.StableSlots();
  if (!stable.ok()) return stable.error();
  if (stable.value()[slot] && ++contradictions_ >= kMostContradictions) {
    return Error{ErrorCode::kUnavailable,
                 "Redis at " + walk_.connection().address() + " says of slot " + std::to_string(slot) +
                     " of the cluster that it has it and that another node has it",
                 moved.detail,
                 {}};
  }
  Slots lost = position_.slots & ~Kept(stable.value());
  lost.set(slot);
  repeated_slots_ += lost.count();
  position_.slots &= ~lost;
  if (position_.slots.any()) return OpenScan();
  CloseNode();
  return {};
}

// Marks the slots as done that the node served throughout its scan. Other nodes have the rest.
Status ClusterScan::FinishNode() {
  const Result<Slots> stable = walk_.StableSlots();
  if (!stable.ok()) return stable.error();
  const Result<Slots> imported = walk_.ImportedSlots();
  if (!imported.ok()) return imported.error();
  const Slots done = Kept(stable.value()) & ~imported.value();
  repeated_slots_ += (position_.slots & ~done).count();
  position_.done |= done;
  if (done.any()) contradictions_ = 0;
  CloseNode();
  return {};
}

void ClusterScan::CloseNode() {
  scan_.reset();
  walk_.Leave();
  position_.node.clear();
  position_.epoch = 0;
  position_.slots.reset();
  position_.scan.clear();
}

}  // namespace prm::source
