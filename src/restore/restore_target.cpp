#include "restore/restore_target.h"

#include "pg/spi.h"
#include "pg/time.h"
#include "redis/cluster_slots.h"

namespace prm {

namespace {

constexpr size_t kKeysAtOnce = 5000;
constexpr long kFlightsPerSecond = 20;
constexpr char kRetry[] =
    "The restore keeps its position: call redis_migrate.restore again with the same arguments.";

}  // namespace

RestoreTarget::RestoreTarget(const std::string &server, const sink::WriterOptions &options)
    : deployment_(ServerOptions(server, GetUserId())),
      options_(options),
      ceiling_(deployment_.max_rate),
      outage_("restore", kRetry) {
  pg::Spi::Commit();
  deployment_.read_from = redis::ReadFrom::kMaster;
  options_.is_cluster = is_cluster();
  try {
    if (is_cluster())
      FindNodes();
    else
      NodeAt({});
  } catch (const pg::Failure &failure) {
    ThrowAtFirst(failure, server);
  }
}

void RestoreTarget::FindNodes() {
  pg::ExternalDescriptor descriptor;
  pg::LatchWaiter waiter;
  auto const topology = pg::ValueOrThrow(redis::FindTopology(deployment_, waiter));
  masters_.clear();
  owners_.assign(redis::kClusterSlots, {});
  for (const redis::ClusterShard &shard : topology.shards) {
    std::string const address = redis::HostAndPort(shard.master.endpoint.host, shard.master.endpoint.port);
    masters_.emplace(address, shard.master.endpoint);
    for (size_t slot = 0; slot < redis::kClusterSlots; ++slot)
      if (shard.slots.test(slot)) owners_[slot] = address;
  }
}

// After an outage. All nodes may be away.
void RestoreTarget::FindNodesAgain() {
  for (std::optional<pg::Failure> failure; is_cluster();) {
    try {
      FindNodes();
      return;
    } catch (const pg::Failure &error) {
      if (!MayComeBack(error.sqlstate())) throw;
      failure.emplace(error);
    }
    outage_.Wait(*failure, false);
  }
}

// Empty: a server of its own, or a slot that nobody serves.
std::string RestoreTarget::AddressOf(const source::Entry &entry) const {
  return is_cluster() ? owners_[redis::KeySlot(entry.key)] : std::string();
}

RestoreTarget::Node &RestoreTarget::NodeAt(const std::string &address) {
  std::unique_ptr<Node> &node = nodes_[address];
  if (node != nullptr) return *node;
  auto opened = std::make_unique<Node>();
  opened->connection =
      pg::ValueOrThrow(is_cluster() ? redis::OpenNode(deployment_, masters_.at(address), opened->waiter)
                                    : redis::OpenServer(deployment_, opened->waiter));
  opened->writer.emplace(pg::ValueOrThrow(sink::KeyWriter::Open(*opened->connection, options_)));
  node = std::move(opened);
  return *node;
}

// False: the connection failed, and it was waited.
bool RestoreTarget::WriteAt(const std::string &address, const std::vector<const source::Entry *> &entries,
                            std::vector<sink::WrittenKey> &written) {
  std::optional<pg::Failure> failure;
  bool was_open = false;
  try {
    if (is_cluster() && address.empty())
      throw pg::Failure(
          Error{ErrorCode::kUnavailable, "no node of the cluster serves the slot of a key", {}, {}});
    Node &node = NodeAt(address);
    was_open = true;
    uint64_t const before = node.writer->by_commands();
    Status const status = node.writer->Write(entries, pg::NowMs(), written);
    by_commands_ += node.writer->by_commands() - before;
    if (status.ok()) return true;
    if (!MayComeBack(status.error().code))
      throw pg::Failure(pg::Failure::SqlState(status.error().code), status.error().message,
                        status.error().detail, status.error().hint.empty() ? kRetry : status.error().hint);
    failure.emplace(status.error());
  } catch (const pg::Failure &error) {
    if (!MayComeBack(error.sqlstate())) throw;
    failure.emplace(error);
  }
  nodes_.erase(address);
  outage_.Wait(*failure, was_open);
  FindNodesAgain();
  return false;
}

void RestoreTarget::Write(const std::vector<source::Entry> &entries, std::vector<sink::WrittenKey> &result) {
  result.assign(entries.size(), {sink::KeyFate::kFailed, "no_payload", "no payload of the key was kept"});
  std::vector<size_t> left;
  for (size_t i = 0; i < entries.size(); ++i)
    if (entries[i].state == source::EntryState::kRead) left.push_back(i);
  size_t const at_once = deployment_.max_rate > 0
                             ? static_cast<size_t>(std::max(deployment_.max_rate / kFlightsPerSecond, 1L))
                             : kKeysAtOnce;
  while (!left.empty()) {
    while (long const wait_ms = ceiling_.WaitMs()) pg::Sleep(wait_ms);
    // Those of one node, in their order.
    std::string const address = AddressOf(entries[left[0]]);
    std::vector<size_t> chosen;
    std::vector<size_t> others;
    std::vector<const source::Entry *> pointers;
    for (size_t const i : left) {
      bool const is_chosen = chosen.size() < at_once && AddressOf(entries[i]) == address;
      (is_chosen ? chosen : others).push_back(i);
      if (is_chosen) pointers.push_back(&entries[i]);
    }
    ceiling_.Take(chosen.size());
    std::vector<sink::WrittenKey> written;
    if (!WriteAt(address, pointers, written)) continue;
    std::optional<std::string> moved;
    for (size_t i = 0; i < chosen.size(); ++i) {
      result[chosen[i]] = written[i];
      if (written[i].fate != sink::KeyFate::kElsewhere) continue;
      others.push_back(chosen[i]);
      moved = written[i].message;
    }
    left = std::move(others);
    if (moved) {
      outage_.Wait(pg::Failure(Error{ErrorCode::kUnavailable, *moved, {}, {}}), false);
      FindNodesAgain();
    } else {
      outage_ = Outage("restore", kRetry);
    }
  }
}

}  // namespace prm
