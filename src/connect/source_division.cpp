#include "connect/source_division.h"

#include <charconv>

#include "connect/outage.h"
#include "pg/memory.h"
#include "redis/info.h"
#include "source/cluster_walk.h"
#include "source/rdb_file.h"

namespace prm {

namespace {

// Each process that reads a share of names makes Redis go through all names; and every table of Redis that
// has keys has at least as many buckets as there can be shares of its cursors.
constexpr int kMostServerReaders = 1 << source::kMostShareBits;
// Each process goes through the whole file, which is cheap as long as storing the keys takes much longer.
constexpr int kMostFileReaders = 16;
// To start a process takes as long as to migrate some thousand keys.
constexpr int64 kKeysWorthAReader = 25000;
constexpr uint64_t kBytesWorthAReader = uint64_t{4} << 20;

constexpr char kSlots[] = "slots ";
constexpr char kCursors[] = "cursors ";
constexpr char kNames[] = "names ";
constexpr char kOf[] = " of ";

std::string NumberOf(uint64_t number, uint64_t count) {
  return std::to_string(number + 1) + kOf + std::to_string(count);
}

// Reads "2 of 4" as {1, 4}.
std::optional<std::pair<uint64_t, uint64_t>> ParseNumberOf(Bytes text) {
  uint64_t number = 0, count = 0;
  const char *const end = text.data() + text.size();
  auto [of, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || Bytes(of, end - of).substr(0, strlen(kOf)) != kOf) return {};
  auto [rest, second] = std::from_chars(of + strlen(kOf), end, count);
  if (second != std::errc() || rest != end || number < 1 || number > count) return {};
  return std::pair(number - 1, count);
}

}  // namespace

std::string SourcePart::ToString() const {
  if (auto *slots = std::get_if<redis::Slots>(&share)) return kSlots + redis::SlotsToText(*slots);
  if (auto *cursors = std::get_if<source::CursorShare>(&share))
    return kCursors + NumberOf(cursors->number, uint64_t{1} << cursors->bits);
  const auto &names = std::get<source::NameShare>(share);
  return kNames + NumberOf(names.number, names.count);
}

SourcePart SourcePart::Parse(const std::string &share) {
  Bytes text = share;
  if (text.substr(0, strlen(kSlots)) == kSlots)
    return {pg::ValueOrThrow(redis::SlotsFromText(text.substr(strlen(kSlots))))};
  if (text.substr(0, strlen(kCursors)) == kCursors)
    if (auto numbers = ParseNumberOf(text.substr(strlen(kCursors)))) {
      source::CursorShare cursors;
      cursors.number = numbers->first;
      while (uint64_t{1} << cursors.bits < numbers->second) ++cursors.bits;
      if (cursors.IsValid()) return {cursors};
    }
  if (text.substr(0, strlen(kNames)) == kNames)
    if (auto numbers = ParseNumberOf(text.substr(strlen(kNames))))
      return {source::NameShare{numbers->first, numbers->second}};
  throw pg::Failure(ERRCODE_DATA_CORRUPTED, "invalid share \"" + share + "\" of a source");
}

redis::Deployment ShareOf(redis::Deployment deployment, const std::optional<SourcePart> &part) {
  if (part && deployment.max_rate > 0)
    deployment.max_rate = std::max(deployment.max_rate / part->readers, 1L);
  return deployment;
}

Keyspace KeyspaceOf(const redis::ServerInfo &info, const std::optional<std::vector<int>> &wanted) {
  Keyspace found;
  for (const redis::KeyspaceInfo &keyspace : info.Keyspace()) {
    if (wanted && std::find(wanted->begin(), wanted->end(), keyspace.db) == wanted->end()) continue;
    found.databases.push_back(keyspace.db);
    found.keys = static_cast<int64>(redis::AddKeys(static_cast<uint64_t>(found.keys), keyspace.keys));
  }
  if (found.databases.empty()) found.databases.push_back(wanted && !wanted->empty() ? (*wanted)[0] : 0);
  return found;
}

SourceDivision::SourceDivision(const SourcePlace &place, bool count_keys, bool first)
    : kind_(place.kind), server_(place.server) {
  if (kind_ == "rdb") {
    const ServerFile file(place.file, GetUserId());
    begin_ = source::RdbFilePosition::StartOf(file).ToString();
    bytes_ = file.size();
  }
  if (kind_ != "scan") return;
  Outage outage = place.outage;
  for (std::optional<pg::Failure> failure;; outage.Wait(*failure, false)) {
    try {
      AskServer(place, count_keys);
      return;
    } catch (const pg::Failure &error) {
      if (first) ThrowAtFirst(error, server_);
      if (!MayComeBack(error.sqlstate())) throw;
      failure.emplace(error);
    }
  }
}

void SourceDivision::AskServer(const SourcePlace &place, bool count_keys) {
  const redis::Deployment deployment = ServerOptions(server_, GetUserId());
  if (deployment.seeds.empty()) {
    ServerConnection connection(server_, GetUserId());
    is_local_ = connection->address().front() == '/' || connection->named() == redis::AddressKind::kLoopback;
    auto info = redis::FetchInfo(*connection);
    // A failed answer does not matter here: the scan itself asks for what it needs.
    if (!info.ok()) {
      if (MayComeBack(info.error().code)) throw pg::Failure(info.error());
      return;
    }
    run_id_ = info.value().run_id();
    evicted_ = info.value().evicted_keys();
    const Keyspace keyspace = KeyspaceOf(info.value(), place.databases);
    keys_ = keyspace.keys;
    first_database_ = keyspace.databases.front();
    by_cursor_ = source::ScanSource::HasCursorShares(info.value());
    return;
  }
  ClusterResources resources;
  source::ClusterWalk walk(deployment, resources.waiter);
  if (const Status found = walk.FindTopology(); !found.ok()) throw pg::Failure(found.error());
  redis::Slots served;
  for (const redis::ClusterShard &shard : walk.topology().shards) {
    masters_.push_back(shard.slots & ~served);
    served |= shard.slots;
  }
  masters_.back() |= ~served;  // an unserved slot holds up the run in any case
  if (!count_keys) return;
  const auto keys = pg::ValueOrThrow(walk.CountKeys());
  if (keys) keys_ = static_cast<int64>(*keys);
}

int SourceDivision::most_readers() const {
  if (kind_ == "rdb") return kMostFileReaders;
  if (is_cluster()) return static_cast<int>(masters_.size());
  return kind_ == "scan" ? kMostServerReaders : 1;
}

int SourceDivision::worthwhile_readers() const {
  if (is_cluster()) return most_readers();
  const int64 worth =
      kind_ == "rdb" ? static_cast<int64>(bytes_ / kBytesWorthAReader) : keys_ / kKeysWorthAReader;
  return static_cast<int>(std::clamp(worth, int64{1}, int64{most_readers()}));
}

std::vector<SourceDivision::Part> SourceDivision::Into(int readers) const {
  std::vector<Part> parts;
  for (const redis::Slots &slots : masters_) parts.push_back({SourcePart{slots}.ToString(), ""});
  if (is_cluster()) return parts;
  const int count = std::min(readers, most_readers());
  if (by_cursor_ && count > 1) {
    source::CursorShare share;
    while (1 << share.bits < count) ++share.bits;
    for (; share.number < uint64_t{1} << share.bits; ++share.number)
      parts.push_back({SourcePart{share}.ToString(),
                       source::ScanPosition{run_id_, first_database_, share.Start(), false}.ToString()});
    return parts;
  }
  for (int i = 0; i < count; ++i)
    parts.push_back(
        {SourcePart{source::NameShare{static_cast<uint64_t>(i), static_cast<uint64_t>(count)}}.ToString(),
         begin_});
  return parts;
}

bool SourceDivision::StillHas(const Part &part) const {
  const SourcePart before = SourcePart::Parse(part.share);
  if (std::holds_alternative<redis::Slots>(before.share) != is_cluster()) return false;
  if (!std::holds_alternative<source::CursorShare>(before.share)) return true;
  const auto position = source::ScanPosition::Parse(part.position);
  return position.ok() && position.value().run_id == run_id_;
}

std::optional<int64> SourceDivision::EvictedSince() const {
  if (!evicted_) return {};
  try {
    ServerConnection connection(server_, GetUserId());
    auto info = redis::FetchInfo(*connection);
    if (!info.ok() || info.value().run_id() != run_id_ || !info.value().evicted_keys()) return {};
    return *info.value().evicted_keys() - *evicted_;
  } catch (const pg::Failure &) {
    return {};  // all keys have been read
  }
}

}  // namespace prm
