#include "connect/source_reader.h"

#include "pg/arguments.h"
#include "pg/memory.h"
#include "pg/settings.h"
#include "pg/time.h"
#include "rdb/version.h"
#include "source/snapshot.h"

namespace prm {

namespace settings = pg::settings;

namespace {

// One page of names per batch keeps Redis busy without a round trip in between; SCAN of so many takes it
// about a millisecond.
constexpr int kLargestScanCount = 5000;

constexpr long kPagesPerSecond = 20;

constexpr long kFirstRetryMs = 200;
constexpr long kLongestRetryMs = 3000;
// A wait that Redis gets over faster than this is not worth a warning.
constexpr long kQuietMs = 1000;

// Between half of the pause and all of it, so that many sessions do not come back at the same moment.
long WithJitter(long pause_ms) {
  return pause_ms -
         static_cast<long>(pg_prng_uint64_range(&pg_global_prng_state, 0, static_cast<uint64>(pause_ms / 2)));
}

bool MayComeBack(int sqlstate) {
  return sqlstate == ERRCODE_CONNECTION_FAILURE || sqlstate == ERRCODE_CONNECTION_EXCEPTION ||
         sqlstate == ERRCODE_CANNOT_CONNECT_NOW;
}

// While what is read is out of reach: tells of it, and gives up after reconnect_timeout.
class Outage {
 public:
  // Waits a moment before the next try. was_open: it was reached, and then the connection failed. Throws the
  // failure when the time is over.
  void Wait(const pg::Failure &failure, bool was_open) {
    TimestampTz const now = GetCurrentTimestamp();
    if (since_ == 0) since_ = now;
    if (TimestampDifferenceMilliseconds(since_, now) >= settings::reconnect_timeout_ms)
      throw pg::Failure(failure.sqlstate(), failure.message(), failure.detail(),
                        was_open && failure.sqlstate() == ERRCODE_CONNECTION_FAILURE
                            ? "Redis is reachable but keeps closing the connection. If its "
                              "client-output-buffer-limit or maxmemory-clients is the cause, lower "
                              "pg_redis_migrate.bytes_in_flight; the run keeps its position."
                            : "The run keeps its position: CALL redis_migrate.run again when Redis is back.");
    // Before a time limit is over it was waited for in silence already.
    const bool was_waited_for = failure.sqlstate() == ERRCODE_CONNECTION_EXCEPTION;
    if (!told_ && (was_waited_for || TimestampDifferenceExceeds(since_, now, kQuietMs))) {
      told_ = true;
      pg::Report(WARNING, failure.message(), failure.detail(),
                 "The run goes on by itself if that passes within pg_redis_migrate.reconnect_timeout, " +
                     std::to_string((settings::reconnect_timeout_ms + 999) / 1000) + " s.");
    }
    pg::Sleep(WithJitter(pause_ms_));
    pause_ms_ = std::min(pause_ms_ * 2, kLongestRetryMs);
  }

 private:
  TimestampTz since_ = 0;
  long pause_ms_ = kFirstRetryMs;
  bool told_ = false;
};

// The databases to read: those that are wanted, or all that have keys.
std::vector<int> Databases(const std::optional<std::vector<int>> &wanted, const redis::ServerInfo &info,
                           int64 *estimate) {
  std::vector<int> databases;
  *estimate = 0;
  for (const redis::KeyspaceInfo &keyspace : info.Keyspace()) {
    if (wanted && std::find(wanted->begin(), wanted->end(), keyspace.db) == wanted->end()) continue;
    databases.push_back(keyspace.db);
    *estimate += static_cast<int64>(keyspace.keys);
  }
  if (databases.empty()) databases.push_back(wanted && !wanted->empty() ? (*wanted)[0] : 0);
  return databases;
}

// Options of a scan from the settings and the options of the server.
source::ScanOptions Options(const redis::Deployment &deployment) {
  source::ScanOptions options;
  // Positions are between pages of SCAN, which may be longer than COUNT by what a bucket holds: a batch must
  // have room for a page, or no position would be stored that goes beyond it, and a page that has to be cut
  // leaves Redis without work. So the page is a little smaller than batch_rows, and the batch a little
  // larger.
  options.scan_count = std::clamp(settings::batch_rows * 9 / 10, 1, kLargestScanCount);
  options.batch_keys = static_cast<size_t>(settings::batch_rows + settings::batch_rows / 8 + 16);
  options.batch_bytes = static_cast<uint64_t>(settings::batch_size_kb) * 1024;
  options.bytes_in_flight = static_cast<uint64_t>(settings::bytes_in_flight_kb) * 1024;
  // Under a ceiling pages are small, so that the load is even, and a batch is about a second's worth.
  options.max_rate = deployment.max_rate;
  if (options.max_rate > 0) {
    options.scan_count = std::min(options.scan_count, std::max(options.max_rate / kPagesPerSecond, 1L));
    options.batch_keys = std::min(
        options.batch_keys, static_cast<size_t>(std::max(options.max_rate, 2 * options.scan_count + 16)));
    // However few of the names are wanted: what was read since a position was stored is lost with the
    // connection.
    options.batch_names = std::min(options.batch_names, static_cast<uint64_t>(options.max_rate));
  }
  options.max_reply_bytes = static_cast<uint64_t>(settings::max_reply_size_kb) * 1024;
  options.max_value_bytes = static_cast<uint64_t>(settings::max_value_size_kb) * 1024;
  return options;
}

Masters AskForMasters(const std::string &server, bool count_keys) {
  Masters masters;
  const redis::Deployment deployment = ServerOptions(server, GetUserId());
  if (deployment.seeds.empty()) return masters;
  ClusterResources resources;
  source::ClusterWalk walk(deployment, resources.waiter);
  if (const Status found = walk.FindTopology(); !found.ok()) throw pg::Failure(found.error());
  redis::Slots served;
  for (const redis::ClusterShard &shard : walk.topology().shards) {
    masters.slots.push_back(shard.slots & ~served);
    served |= shard.slots;
  }
  masters.slots.back() |= ~served;  // an unserved slot holds up the run in any case
  if (!count_keys) return masters;
  const auto keys = pg::ValueOrThrow(walk.CountKeys());
  if (keys) masters.keys = static_cast<int64>(*keys);
  return masters;
}

}  // namespace

bool MayComeBack(ErrorCode code) {
  return code == ErrorCode::kConnectionFailure || code == ErrorCode::kTimeout ||
         code == ErrorCode::kUnavailable;
}

Masters FindMasters(const std::string &server, bool count_keys, bool first) {
  for (Outage outage;;) {
    std::optional<pg::Failure> failure;
    try {
      return AskForMasters(server, count_keys);
    } catch (const pg::Failure &error) {
      if (first || !MayComeBack(error.sqlstate())) throw;
      failure.emplace(error);
    }
    outage.Wait(*failure, false);
  }
}

SourceReader::SourceReader(SourcePlace place, source::KeyFilter &filter, const std::string &position,
                           bool first, const std::optional<SourcePart> &part)
    : place_(std::move(place)), first_(first), part_(part), filter_(filter) {
  try {
    if (first) Open(position);
  } catch (const pg::Failure &failure) {
    if (!MayComeBack(failure.sqlstate()) || !failure.hint().empty()) throw;
    throw pg::Failure(failure.sqlstate(), failure.message(), failure.detail(),
                      "SELECT * FROM redis_migrate.preflight(" + pg::QuoteLiteral(place_.server) +
                          ") shows what Redis lacks.");
  }
}

void SourceReader::Close() {
  if (cluster_scan_ != nullptr) repeated_slots_ += cluster_scan_->repeated_slots();
  cluster_scan_ = nullptr;
  source_.reset();
  connection_.reset();
  cluster_.reset();
}

void SourceReader::Open(const std::string &position) {
  Close();
  if (place_.kind == "archive") {
    source_ = place_.open_archive(filter_, position);
    return;
  }
  if (place_.kind == "rdb") {
    OpenRdbFile(position);
    return;
  }
  if (place_.kind == "replication") {
    OpenSnapshot(position);
    return;
  }
  const redis::Deployment deployment = ServerOptions(place_.server, GetUserId());
  if (!deployment.seeds.empty())
    OpenCluster(deployment, position);
  else if (part_)
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "server \"" + place_.server + "\" is no longer a cluster",
                      "The run reads it in parts, one for each master that it had.",
                      "Run the migration again: it starts this level over.");
  else
    OpenServer(position);
}

void SourceReader::OpenRdbFile(const std::string &position) {
  file_ = std::make_unique<ServerFile>(place_.file, GetUserId());
  OpenFile(*file_, position);
}

// A run reads one snapshot, in all its passes and each time that it is resumed, as long as the disk has it.
void SourceReader::OpenSnapshot(const std::string &position) {
  if (place_.run_id) snapshot_ = SnapshotFile::Open(*place_.run_id);
  if (snapshot_ == nullptr) TakeSnapshot();
  auto const begun = source::RdbFilePosition::Parse(position);
  bool const is_of_another =
      !position.empty() && (!begun.ok() || begun.value().file != snapshot_->identity());
  restarted_ = restarted_ || is_of_another;
  OpenFile(*snapshot_, is_of_another ? std::string() : position);
}

void SourceReader::TakeSnapshot() {
  TimestampTz const began = GetCurrentTimestamp();
  ServerConnection connection(place_.server, GetUserId());
  if (!connection.deployment().seeds.empty())
    throw pg::Failure(
        ERRCODE_FEATURE_NOT_SUPPORTED, "source 'replication' does not read clusters",
        "Each master would give a snapshot of a moment of its own.",
        "CALL redis_migrate.run(" + pg::QuoteLiteral(place_.migration) + ", source => 'scan').");
  auto link = redis::SnapshotLink::Open(*connection);
  if (!link.ok() && link.error().code == ErrorCode::kPermissionDenied)
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, link.error().message, link.error().detail,
                      "Grant the user both rights of a replica with ACL SETUSER ... +psync +replconf. They "
                      "give it all keys, whatever key patterns it has.");
  pg::ThrowIfError(link);
  auto snapshot = SnapshotFile::Create();
  uint64_t const most = settings::max_snapshot_size_mb < 0
                            ? std::numeric_limits<int64_t>::max()
                            : static_cast<uint64_t>(settings::max_snapshot_size_mb) * 1024 * 1024;
  Status const received = source::ReceiveSnapshot(*link.value(), *snapshot, most);
  if (!received.ok() && received.error().code == ErrorCode::kTooLarge)
    throw pg::Failure(ERRCODE_PROGRAM_LIMIT_EXCEEDED, received.error().message, received.error().detail,
                      "Raise pg_redis_migrate.max_snapshot_size.");
  pg::ThrowIfError(received);
  if (place_.run_id) snapshot->KeepFor(*place_.run_id);
  // Opened again, since its time of change is part of the positions in it.
  snapshot_ = place_.run_id ? SnapshotFile::Open(*place_.run_id) : std::move(snapshot);
  pg::Report(NOTICE, "received a snapshot of Redis at " + link.value()->address() + ": " +
                         std::to_string(snapshot_->size() / (1024 * 1024) + 1) + " MB in " +
                         std::to_string(TimestampDifferenceMilliseconds(began, GetCurrentTimestamp())) +
                         " ms");
}

void SourceReader::OpenFile(ByteSource &file, const std::string &position) {
  source::RdbFileOptions options;
  options.databases = place_.databases;
  options.batch_keys = static_cast<size_t>(settings::batch_rows);
  options.batch_bytes = static_cast<uint64_t>(settings::batch_size_kb) * 1024;
  options.max_value_bytes = static_cast<uint64_t>(settings::max_value_size_kb) * 1024;
  options.now_ms = pg::UnixMs(GetCurrentTimestamp());
  auto source = source::RdbFileSource::Open(file, options, filter_, position);
  if (!source.ok()) throw InFile(source.error());
  source_ = std::move(source.value());
}

// Reports the contents of a file that a migration has no place for.
void SourceReader::ReportNotes() const {
  auto *file = dynamic_cast<source::RdbFileSource *>(source_.get());
  if (file == nullptr || !first_) return;
  const rdb::FileNotes &notes = file->notes();
  if (notes.functions > 0)
    pg::Report(NOTICE, "the file has " + std::to_string(notes.functions) +
                           " function libraries, which are not migrated");
  for (const auto &[module, parts] : notes.modules)
    pg::Report(NOTICE,
               "the file has data of module " + module + " that belongs to no key, which are not migrated");
}

// Once, by the process that leads the run.
void SourceReader::ReportVersion(unsigned version) {
  if (std::exchange(version_reported_, true) || !first_) return;
  pg::Report(WARNING,
             "Redis answers DUMP in RDB version " + std::to_string(version) +
                 ", which this release does not know: values are read in pieces",
             std::string(rdb::kVersionsRead) +
                 " Reading in pieces costs Redis more, and values of modules and "
                 "other types without commands for their parts are rejected.",
             "Update pg_redis_migrate.");
}

pg::Failure SourceReader::InFile(const Error &error) const {
  return {pg::Failure::SqlState(error.code), error.message,
          (snapshot_ ? "Snapshot of server \"" + place_.server : "File \"" + place_.file) + "\"" +
              (error.detail.empty() ? "." : ", " + error.detail),
          error.hint};
}

void SourceReader::OpenServer(const std::string &position) {
  connection_ = std::make_unique<ServerConnection>(place_.server, GetUserId());
  redis::Connection &connection = **connection_;
  source::ScanOptions options = Options(connection_->deployment());
  auto info = redis::FetchInfo(connection);
  if (info.ok()) {
    // Until everything is loaded, INFO lists only some of the databases.
    if (info.value().loading())
      throw pg::Failure(Error{ErrorCode::kUnavailable,
                              "Redis at " + connection.address() + " is loading its data", "",
                              "Wait until INFO shows loading:0."});
    if (info.value().Get("redis_mode") == "cluster")
      throw pg::Failure(
          ERRCODE_INVALID_PARAMETER_VALUE, "Redis at " + connection.address() + " is a node of a cluster",
          "It has only some of the keys.",
          "ALTER SERVER " + pg::QuoteIdentifier(place_.server) + " OPTIONS (ADD cluster 'on').");
    options.databases = Databases(place_.databases, info.value(), &estimate_);
    if (run_id_ != info.value().run_id()) {
      run_id_ = info.value().run_id();
      evicted_before_ = info.value().evicted_keys();
    }
    // A database that is empty by now may still be the one that the position is in.
    auto begun = source::ScanPosition::Parse(position);
    if (begun.ok()) options.databases.push_back(begun.value().db);
  } else {
    if (info.error().code != ErrorCode::kPermissionDenied && info.error().code != ErrorCode::kServerError)
      throw pg::Failure(info.error());
    if (!place_.databases)
      throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE,
                        "Redis at " + connection.address() + " does not say which databases have keys",
                        "The user may not run INFO, and the migration names no databases.",
                        "Grant the right with ACL SETUSER ... +info, or name them: SELECT "
                        "redis_migrate.alter_migration(" +
                            pg::QuoteLiteral(place_.migration) + ", databases => '{0}').");
    options.databases = *place_.databases;
  }
  // The server may have been a cluster when the run was interrupted.
  const bool was_cluster = source::ClusterPosition::Parse(position).ok();
  restarted_ = restarted_ || was_cluster;
  auto scan = pg::ValueOrThrow(
      source::ScanSource::Open(connection, options, filter_, was_cluster ? std::string() : position));
  restarted_ = restarted_ || scan->restarted();
  source_ = std::move(scan);
}

void SourceReader::OpenCluster(const redis::Deployment &deployment, const std::string &position) {
  if (place_.databases &&
      std::any_of(place_.databases->begin(), place_.databases->end(), [](int db) { return db != 0; }))
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "a Redis Cluster has database 0 only",
                      "Migration \"" + place_.migration + "\" names others.",
                      "SELECT redis_migrate.alter_migration(" + pg::QuoteLiteral(place_.migration) +
                          ", databases => '{0}').");
  redis::Deployment share = deployment;
  // All readers together keep to the ceiling.
  if (part_ && share.max_rate > 0) share.max_rate = std::max(share.max_rate / part_->readers, 1L);
  auto scan = pg::ValueOrThrow(source::ClusterScan::Open(share, Options(share), filter_, position,
                                                         cluster_.emplace().waiter,
                                                         part_ ? part_->slots : redis::Slots().set()));
  restarted_ = restarted_ || scan->restarted();
  if (scan->key_count()) estimate_ = static_cast<int64>(*scan->key_count());
  cluster_scan_ = scan.get();
  source_ = std::move(scan);
}

std::optional<int64> SourceReader::Evicted() {
  if (!evicted_before_ || connection_ == nullptr) return {};
  auto info = redis::FetchInfo(**connection_);
  if (!info.ok() || info.value().run_id() != run_id_ || !info.value().evicted_keys()) return {};
  return *info.value().evicted_keys() - *evicted_before_;
}

bool SourceReader::Next(source::Batch &batch, const std::string &position) {
  for (Outage outage;;) {
    std::optional<pg::Failure> failure;
    try {
      if (source_ == nullptr) Open(position);
      // Entries after a restart belong to counts that the caller has to clear first.
      if (restarted_) {
        batch = source::Batch();
        batch.position = "";
        return true;
      }
      auto next = source_->Next(batch);
      const bool at_end = next.ok() && !next.value();
      const Status current = at_end && connection_ ? connection_->CheckStillCurrent() : Status();
      if (at_end && current.ok()) ReportNotes();
      if (next.ok() && batch.unknown_version) ReportVersion(*batch.unknown_version);
      if (next.ok() && current.ok()) return next.value();
      const Error &error = next.ok() ? current.error() : next.error();
      if (file_ || snapshot_) throw InFile(error);
      if (!MayComeBack(error.code)) throw pg::Failure(error);
      failure.emplace(error);
    } catch (const pg::Failure &error) {
      if (source_ != nullptr || !MayComeBack(error.sqlstate())) throw;
      failure.emplace(error);
    }
    const bool was_open = source_ != nullptr && cluster_scan_ == nullptr;  // which connects as it reads
    Close();
    outage.Wait(*failure, was_open);
  }
}

}  // namespace prm
