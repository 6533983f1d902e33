#include "verify/key_reader.h"

#include "connect/outage.h"
#include "connect/source_reader.h"
#include "connect/temporary_spool.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "source/living_fields.h"
#include "verify/verified_place.h"

namespace prm {

using pg::Spi;
using source::EntryState;

namespace {

constexpr size_t kKeysAtOnce = 100;

class OnlyThese : public source::KeyFilter {
 public:
  OnlyThese(source::KeyFilter &filter, const std::set<KeyId> &keys) : filter_(filter), keys_(keys) {}
  source::KeyDecision Classify(int db, Bytes key) override {
    if (keys_.count({db, std::string(key)}) == 0) return {};
    return filter_.Classify(db, key);
  }

 private:
  source::KeyFilter &filter_;
  const std::set<KeyId> &keys_;
};

class SessionInterrupts : public Interrupts {
 public:
  void CheckInterrupts() override { pg::CheckInterrupts(); }
};

// As a scan does: fields that have expired are no part of a hash. Returns whether there were some.
bool DropExpired(source::Entry &entry) {
  if (entry.state != EntryState::kRead || entry.plain) return false;
  size_t const before = entry.payload.size();
  SessionInterrupts interrupts;
  Result<bool> const living = source::DropExpiredFields(entry, pg::UnixMs(GetCurrentTimestamp()), interrupts);
  if (living.ok() && !living.value()) entry.state = EntryState::kVanished;
  return entry.state != EntryState::kRead || entry.payload.size() != before;
}

}  // namespace

void KeyReader::SetPart(const std::optional<SourcePart> &part, const std::string &position) {
  part_ = part;
  begin_ = position;
  rate_.reset();
}

void KeyReader::Read(const std::vector<KeyId> &keys, size_t watched_at_once, const Visit &visit) {
  is_watched_ = false;
  if (scans_)
    Scan(keys, visit);
  else
    ReadByName(keys, watched_at_once, visit);
}

std::optional<bool> KeyReader::HeldStill() {
  if (!is_watched_) return {};
  return watch_.HeldStill();
}

bool KeyReader::Open() {
  if (named_ != nullptr && rate_) return true;
  redis::Deployment const deployment = ServerOptions(migration_.server, GetUserId());
  Spi::Commit();
  if (!deployment.seeds.empty()) return false;
  if (!rate_) rate_.emplace(ShareOf(deployment, part_).max_rate);
  if (named_ != nullptr) return true;
  connection_ = std::make_unique<ServerConnection>(migration_.server, GetUserId());
  Spi::Commit();
  source::NamedKeysOptions options;
  options.max_reply_bytes = static_cast<uint64>(pg::settings::max_reply_size_kb) * 1024;
  options.max_value_bytes = static_cast<uint64>(pg::settings::max_value_size_kb) * 1024;
  options.make_spool = TemporarySpool::Make;
  auto named = source::NamedKeys::Open(**connection_, options);
  if (!named.ok() &&
      (named.error().code == ErrorCode::kUnsupported || named.error().code == ErrorCode::kPermissionDenied ||
       named.error().code == ErrorCode::kServerError))
    return false;
  named_ = pg::ValueOrThrow(std::move(named));
  return true;
}

std::vector<redis::ReplicationPoint> KeyReader::FetchPoints() {
  redis::Deployment const deployment = ServerOptions(migration_.server, GetUserId());
  Spi::Commit();
  if (!deployment.seeds.empty()) return FetchPointsOfCluster(deployment);
  if (!Open()) return {};
  return {pg::ValueOrThrow(named_->FetchPoint())};
}

std::vector<redis::ReplicationPoint> KeyReader::FetchPointsOfCluster(const redis::Deployment &deployment) {
  ClusterResources resources;
  auto const topology = pg::ValueOrThrow(redis::FindTopology(deployment, resources.waiter));
  std::vector<redis::ReplicationPoint> points;
  for (const redis::ClusterShard &shard : topology.shards) {
    auto const master =
        pg::ValueOrThrow(redis::OpenNode(deployment, shard.master.endpoint, resources.waiter));
    source::NamedKeysOptions options;
    options.is_cluster = true;
    auto const named = source::NamedKeys::Open(*master, options);
    if (!named.ok()) return {};
    points.push_back(pg::ValueOrThrow(named.value()->FetchPoint()));
  }
  return points;
}

void KeyReader::ReadByName(const std::vector<KeyId> &keys, size_t watched_at_once, const Visit &visit) {
  size_t const at_once = watched_at_once > 0 ? watched_at_once : kKeysAtOnce;
  size_t next = 0;
  for (Outage outage = VerificationOutage(); next < keys.size();) {
    std::optional<pg::Failure> failure;
    std::vector<KeyId> const part(keys.begin() + static_cast<long>(next),
                                  keys.begin() + static_cast<long>(std::min(next + at_once, keys.size())));
    std::vector<source::NamedKey> read(part.size());
    for (size_t i = 0; i < read.size(); ++i) std::tie(read[i].entry.db, read[i].entry.key) = part[i];
    try {
      if (!Open()) {
        scans_ = true;
        return Scan({keys.begin() + static_cast<long>(next), keys.end()}, visit);
      }
      while (long const wait_ms = rate_->WaitMs()) pg::Sleep(wait_ms);
      rate_->Take(read.size());
      is_watched_ = watched_at_once > 0 && watch_.Begin(part, named_->run_id());
      pg::ThrowIfError(named_->Read(read));
    } catch (const pg::Failure &error) {
      named_.reset();
      connection_.reset();
      if (!MayComeBack(error.sqlstate())) throw;
      failure.emplace(error);
    }
    if (failure) {
      outage.Wait(*failure, true);
      continue;
    }
    outage = VerificationOutage();
    next += read.size();
    std::vector<source::Entry> entries;
    redis::ReplicationPoint point;
    for (source::NamedKey &key : read) {
      // That the server removes them is yet to come, and would be the change.
      if (DropExpired(key.entry)) is_watched_ = false;
      key.entry.route = filter_.Classify(key.entry.db, key.entry.key).route;
      if (entries.empty() || key.until.offset > point.offset) point = key.until;
      entries.push_back(std::move(key.entry));
    }
    visit(entries, point);
  }
}

void KeyReader::Scan(const std::vector<KeyId> &keys, const Visit &visit) {
  std::set<KeyId> left(keys.begin(), keys.end());
  OnlyThese filter(filter_, left);
  SourceReader source(PlaceToVerify(migration_, "scan"), filter, begin_, true, part_);
  Spi::Commit();
  std::string position = begin_;
  source::Batch batch;
  while (source.Next(batch, position)) {
    position = source.TakeRestarted() ? begin_ : batch.position;
    // Keys that are asked for by name alone do not matter here. A key that was met is not asked for again.
    for (const source::Entry &entry : batch.entries) left.erase({entry.db, entry.key});
    if (!batch.entries.empty()) visit(batch.entries, std::nullopt);
    batch = source::Batch();
  }
  std::vector<source::Entry> gone;
  for (const KeyId &key : left) {
    source::Entry entry;
    std::tie(entry.db, entry.key) = key;
    entry.route = filter_.Classify(entry.db, entry.key).route;
    entry.state = EntryState::kVanished;
    gone.push_back(std::move(entry));
  }
  if (!gone.empty()) visit(gone, std::nullopt);
}

}  // namespace prm
