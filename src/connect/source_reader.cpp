#include "connect/source_reader.h"

#include "connect/outage.h"
#include "connect/temporary_spool.h"
#include "pg/arguments.h"
#include "pg/memory.h"
#include "pg/settings.h"
#include "pg/time.h"
#include "rdb/version.h"
#include "source/snapshot.h"

namespace prm {

namespace settings = pg::settings;

namespace {

// Where names and values share a connection, one page of names per batch keeps Redis busy without a round
// trip in between.
constexpr int kLargestScanCount = 5000;

constexpr long kPagesPerSecond = 20;

// Options of a scan from the settings and the options of the server, for the reader of a part or of all.
source::ScanOptions Options(const redis::Deployment &deployment, const std::optional<SourcePart> &part) {
  source::ScanOptions options;
  // Positions are between pages of SCAN, which may be longer than COUNT by what a bucket holds: a batch must
  // have room for a page, or no position would be stored that goes beyond it, and a page that has to be cut
  // leaves Redis without work. So the page is a little smaller than batch_rows, and the batch a little
  // larger.
  options.scan_count = std::clamp(settings::batch_rows * 9 / 10, 1, kLargestScanCount);
  options.batch_keys = static_cast<size_t>(settings::batch_rows + settings::batch_rows / 8 + 16);
  options.batch_bytes = static_cast<uint64_t>(settings::batch_size_kb) * 1024;
  options.bytes_in_flight = static_cast<uint64_t>(settings::bytes_in_flight_kb) * 1024;
  if (part) options.bytes_in_flight = std::max(options.bytes_in_flight / part->readers, uint64_t{1});
  // Under a ceiling pages are small, so that the load is even, and a batch is about a second's worth.
  options.max_rate = deployment.max_rate;
  if (options.max_rate > 0) {
    options.scan_count = std::min(options.scan_count, std::max(options.max_rate / kPagesPerSecond, 1L));
    options.batch_keys = std::min(
        options.batch_keys, static_cast<size_t>(std::max(options.max_rate, 2 * options.scan_count + 16)));
    // This holds however few of the names are wanted: what was read since the last stored position is lost
    // with the connection.
    options.batch_names = std::min(options.batch_names, static_cast<uint64_t>(options.max_rate));
  }
  options.lets_proceed = true;
  options.max_reply_bytes = static_cast<uint64_t>(settings::max_reply_size_kb) * 1024;
  options.max_value_bytes = static_cast<uint64_t>(settings::max_value_size_kb) * 1024;
  options.make_spool = TemporarySpool::Make;
  return options;
}

}  // namespace

SourceReader::SourceReader(SourcePlace place, source::KeyFilter &filter, const std::string &position,
                           bool first, const std::optional<SourcePart> &part)
    : place_(std::move(place)), first_(first), part_(part), filter_(filter) {
  try {
    if (first && !part) Open(position);
  } catch (const pg::Failure &failure) {
    ThrowAtFirst(failure, place_.server);
  }
}

void SourceReader::Close() {
  if (cluster_scan_ != nullptr) repeated_slots_ += cluster_scan_->repeated_slots();
  cluster_scan_ = nullptr;
  source_.reset();
  names_descriptor_.reset();
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
  const bool is_cluster = !deployment.seeds.empty();
  if (part_ && std::holds_alternative<redis::Slots>(part_->share) != is_cluster)
    throw pg::Failure(
        ERRCODE_CANNOT_CONNECT_NOW,
        "server \"" + place_.server + "\" is " + (is_cluster ? "now" : "no longer") + " a cluster",
        "The part that is read is " + part_->ToString() + ".",
        "Begin again: the source is then divided anew.");
  if (is_cluster)
    OpenCluster(deployment, position);
  else
    OpenServer(position);
}

void SourceReader::OpenRdbFile(const std::string &position) {
  file_ = std::make_unique<ServerFile>(place_.file, GetUserId());
  OpenFile(*file_, position);
}

// A run reads the same snapshot in all its passes and whenever it is resumed, as long as the file exists.
void SourceReader::OpenSnapshot(const std::string &position) {
  auto const begun = source::RdbFilePosition::Parse(position);
  snapshot_.reset();
  std::vector<int> const links = place_.run_id ? SnapshotFile::LinksOf(*place_.run_id) : std::vector<int>();
  for (int const link : links) {
    auto snapshot = SnapshotFile::Open(*place_.run_id, link);
    bool const is_begun = begun.ok() && begun.value().file == snapshot->identity();
    if (snapshot_ != nullptr && !is_begun) continue;
    snapshot_ = std::move(snapshot);
    link_ = link;
  }
  if (snapshot_ == nullptr && place_.is_received)
    throw pg::Failure(ERRCODE_UNDEFINED_FILE,
                      "the snapshot of run " + std::to_string(*place_.run_id) + " is gone");
  if (snapshot_ == nullptr) TakeSnapshot();
  bool const is_of_another =
      !position.empty() && (!begun.ok() || begun.value().file != snapshot_->identity());
  restarted_ = restarted_ || is_of_another;
  OpenFile(*snapshot_, is_of_another ? std::string() : position);
}

// For a cluster, once each master has given one. False: it was the last.
bool SourceReader::OpenNextSnapshot() {
  if (!place_.is_received) return false;
  std::vector<int> const links = SnapshotFile::LinksOf(*place_.run_id);
  auto const next = std::upper_bound(links.begin(), links.end(), link_);
  if (next == links.end()) return false;
  source_.reset();
  link_ = *next;
  snapshot_ = SnapshotFile::Open(*place_.run_id, link_);
  OpenFile(*snapshot_, {});
  return true;
}

void SourceReader::TakeSnapshot() {
  TimestampTz const began = GetCurrentTimestamp();
  ServerConnection connection(place_.server, GetUserId());
  if (!connection.deployment().seeds.empty())
    throw pg::Failure(
        ERRCODE_FEATURE_NOT_SUPPORTED, "source 'replication' does not read clusters",
        "Each master would give a snapshot of another moment.",
        "CALL redis_migrate.run(" + pg::QuoteLiteral(place_.migration) + ", source => 'scan').");
  auto link = redis::ReplicationLink::OpenForSnapshot(*connection);
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
  // The file is opened again because its time of change is part of its positions.
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
  options.make_spool = TemporarySpool::Make;
  // A live run keeps what has expired until the stream says that it is gone.
  options.now_ms = place_.is_received ? 0 : pg::NowMs();
  if (part_) options.share = std::get<source::NameShare>(part_->share);
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
               "the file has data of module " + module + " that belongs to no key; it is not migrated");
}

// Reports once, in the process that leads the run.
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
  source::ScanOptions options = Options(ShareOf(connection_->deployment(), part_), part_);
  if (part_) {
    options.readers = part_->readers;
    if (auto *cursors = std::get_if<source::CursorShare>(&part_->share)) options.share = *cursors;
    if (auto *names = std::get_if<source::NameShare>(&part_->share)) options.names = *names;
  }
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
    Keyspace const keyspace = KeyspaceOf(info.value(), place_.databases);
    options.databases = keyspace.databases;
    estimate_ = keyspace.keys;
    if (run_id_ != info.value().run_id()) {
      run_id_ = info.value().run_id();
      evicted_before_ = info.value().evicted_keys();
    }
    // Under a ceiling names come page by page.
    if (place_.listed && place_.listed->run_id == run_id_ && options.max_rate == 0)
      options.listed = &*place_.listed;
    options.end_page = place_.end_page;
    // The position may be in a database that is empty by now.
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
  names_descriptor_.emplace();
  auto scan = pg::ValueOrThrow(
      source::ScanSource::Open(connection, options, filter_, was_cluster ? std::string() : position));
  restarted_ = restarted_ || scan->restarted();
  // Another process of Redis has other hashes, so that other keys are in each share.
  if (restarted_ && options.share.bits > 0)
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "Redis at " + connection.address() + " was restarted or replaced",
                      "It was read in parts, of which " + part_->ToString() + " is one.",
                      "Begin again: the source is then divided anew.");
  source_ = std::move(scan);
}

void SourceReader::OpenCluster(const redis::Deployment &deployment, const std::string &position) {
  if (place_.databases &&
      std::any_of(place_.databases->begin(), place_.databases->end(), [](int db) { return db != 0; }))
    throw pg::Failure(ERRCODE_INVALID_PARAMETER_VALUE, "a Redis Cluster has database 0 only",
                      "Migration \"" + place_.migration + "\" names others.",
                      "SELECT redis_migrate.alter_migration(" + pg::QuoteLiteral(place_.migration) +
                          ", databases => '{0}').");
  const redis::Deployment share = ShareOf(deployment, part_);
  auto scan = pg::ValueOrThrow(
      source::ClusterScan::Open(share, Options(share, part_), filter_, position, cluster_.emplace().waiter,
                                part_ ? std::get<redis::Slots>(part_->share) : redis::Slots().set()));
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
  meanwhile_.reset();
  if (!Read(batch, position)) return false;
  if (source_ != nullptr)
    meanwhile_.emplace([](void *source) noexcept { static_cast<source::Source *>(source)->Proceed(); },
                       source_.get());
  return true;
}

bool SourceReader::Read(source::Batch &batch, const std::string &position) {
  for (Outage outage = place_.outage;;) {
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
      if (at_end && OpenNextSnapshot()) continue;
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
    was_cut_ = true;
    outage.Wait(*failure, was_open);
  }
}

}  // namespace prm
