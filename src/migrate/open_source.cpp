#include "migrate/open_source.h"

#include "migrate/archive_source.h"
#include "pg/memory.h"
#include "pg/settings.h"

namespace prm::migrate {

namespace settings = pg::settings;

namespace {

// One page of names per batch keeps Redis busy without a round trip in between; SCAN of so many takes it
// about a millisecond.
constexpr int kLargestScanCount = 5000;

// Where Redis evicts keys when its memory is full, replies must fit into what is left of it. So much of that
// is asked for at a time: DUMP holds a value twice while it answers, and the application goes on writing.
constexpr int64 kHeadroomShare = 8;
// With less room even names could evict keys.
constexpr int64 kLeastHeadroom = 1024 * 1024;
// The reply to SCAN counts too: so many bytes for a name.
constexpr int64 kBytesPerName = 128;

constexpr long kFirstRetryMs = 200;
constexpr long kLongestRetryMs = 3000;

bool MayComeBack(ErrorCode code) {
  return code == ErrorCode::kConnectionFailure || code == ErrorCode::kTimeout ||
         code == ErrorCode::kUnavailable;
}

bool MayComeBack(int sqlstate) {
  return sqlstate == ERRCODE_CONNECTION_FAILURE || sqlstate == ERRCODE_CONNECTION_EXCEPTION ||
         sqlstate == ERRCODE_CANNOT_CONNECT_NOW;
}

// The databases to read: those of the migration, or all that have keys.
std::vector<int> Databases(const Migration &migration, const redis::ServerInfo &info, int64 *estimate) {
  std::vector<int> databases;
  *estimate = 0;
  for (const redis::KeyspaceInfo &keyspace : info.Keyspace()) {
    if (migration.databases && std::find(migration.databases->begin(), migration.databases->end(),
                                         keyspace.db) == migration.databases->end())
      continue;
    databases.push_back(keyspace.db);
    *estimate += static_cast<int64>(keyspace.keys);
  }
  if (databases.empty())
    databases.push_back(migration.databases && !migration.databases->empty() ? (*migration.databases)[0] : 0);
  return databases;
}

}  // namespace

OpenSource::OpenSource(const Migration &migration, const std::string &source, source::KeyFilter &filter,
                       const std::string &position, bool first)
    : migration_(migration), kind_(source), filter_(filter) {
  try {
    if (first) Open(position);
  } catch (const pg::Failure &failure) {
    if (!MayComeBack(failure.sqlstate()) || !failure.hint().empty()) throw;
    throw pg::Failure(failure.sqlstate(), failure.message(), failure.detail(),
                      "SELECT * FROM redis_migrate.preflight(" + pg::QuoteLiteral(migration.server) +
                          ") shows what Redis lacks.");
  }
}

void OpenSource::Open(const std::string &position) {
  source_.reset();
  if (kind_ == "archive") {
    source_ = std::make_unique<ArchiveSource>(migration_.name, filter_, settings::batch_rows, position);
    return;
  }
  connection_ = std::make_unique<pg::ServerConnection>(migration_.server, GetUserId());
  redis::Connection &connection = **connection_;
  source::ScanOptions options;
  auto info = redis::FetchInfo(connection);
  if (info.ok()) {
    // Until everything is loaded, INFO lists only some of the databases.
    if (info.value().loading())
      throw pg::Failure(Error{ErrorCode::kUnavailable,
                              "Redis at " + connection.address() + " is loading its data", "",
                              "Wait until INFO shows loading:0."});
    options.databases = Databases(migration_, info.value(), &estimate_);
    if (run_id_ != info.value().run_id()) {
      run_id_ = info.value().run_id();
      evicted_before_ = info.value().evicted_keys();
    }
    // A database that is empty by now may still be the one that the position is in.
    auto begun = source::ScanPosition::Parse(position);
    if (begun.ok()) options.databases.push_back(begun.value().db);
  } else {
    if (info.error().code != ErrorCode::kPermissionDenied) throw pg::Failure(info.error());
    if (!migration_.databases)
      throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE,
                        "Redis at " + connection.address() + " does not say which databases have keys",
                        "The user may not run INFO, and the migration names no databases.",
                        "Grant the right with ACL SETUSER … +info, or name them: SELECT "
                        "redis_migrate.alter_migration(" +
                            pg::QuoteLiteral(migration_.name) + ", databases => '{0}').");
    options.databases = *migration_.databases;
  }
  SetLimits(info.ok() ? &info.value() : nullptr, options);
  auto scan = pg::ValueOrThrow(source::ScanSource::Open(connection, options, filter_, position));
  restarted_ = restarted_ || scan->restarted();
  source_ = std::move(scan);
}

// How much is asked for at a time.
void OpenSource::SetLimits(const redis::ServerInfo *info, source::ScanOptions &options) const {
  // Positions are between pages of SCAN, which may be longer than COUNT by what a bucket holds: a batch must
  // have room for a page, or no position would be stored that goes beyond it, and a page that has to be cut
  // leaves Redis without work. So the page is a little smaller than batch_rows, and the batch a little
  // larger.
  options.scan_count = std::clamp(settings::batch_rows * 9 / 10, 1, kLargestScanCount);
  options.batch_keys = static_cast<size_t>(settings::batch_rows + settings::batch_rows / 8 + 16);
  options.batch_bytes = static_cast<uint64_t>(settings::batch_size_kb) * 1024;
  options.bytes_in_flight = static_cast<uint64_t>(settings::bytes_in_flight_kb) * 1024;
  options.max_reply_bytes = static_cast<uint64_t>(settings::max_reply_size_kb) * 1024;
  options.max_value_bytes = static_cast<uint64_t>(settings::max_value_size_kb) * 1024;
  std::optional<int64_t> headroom = info != nullptr ? info->headroom() : std::nullopt;
  if (!headroom) return;
  if (*headroom < kLeastHeadroom)
    throw pg::Failure(
        ERRCODE_INSUFFICIENT_RESOURCES,
        "Redis at " + (*connection_)->address() + " has too little memory left to be read",
        "It is " + std::to_string(*headroom / 1024) +
            " kB below maxmemory and evicts keys when it is full. Replies count towards that, so "
            "that reading would lose keys.",
        "Raise it for the time of the run: CONFIG SET maxmemory " +
            std::to_string(*info->maxmemory() - *headroom +
                           kHeadroomShare * settings::bytes_in_flight_kb * 1024) +
            ".");
  auto share = static_cast<uint64_t>(*headroom / kHeadroomShare);
  options.bytes_in_flight = std::min(options.bytes_in_flight, share);
  options.max_reply_bytes = std::min(options.max_reply_bytes, share);
  options.scan_count = std::min<long>(options.scan_count, static_cast<long>(share / kBytesPerName));
}

std::optional<int64> OpenSource::Evicted() {
  if (!evicted_before_ || connection_ == nullptr) return {};
  auto info = redis::FetchInfo(**connection_);
  if (!info.ok() || info.value().run_id() != run_id_ || !info.value().evicted_keys()) return {};
  return *info.value().evicted_keys() - *evicted_before_;
}

bool OpenSource::Next(source::Batch &batch, const std::string &position) {
  TimestampTz lost_since = 0;
  for (long pause = kFirstRetryMs;; pause = std::min(pause * 2, kLongestRetryMs)) {
    std::optional<pg::Failure> failure;
    try {
      if (source_ == nullptr) Open(position);
      // What comes after a restart belongs to counts that the caller has to clear first.
      if (restarted_ && lost_since != 0) {
        batch = source::Batch();
        batch.position = "";
        return true;
      }
      auto next = source_->Next(batch);
      if (next.ok()) return next.value();
      if (!MayComeBack(next.error().code)) throw pg::Failure(next.error());
      failure.emplace(next.error());
    } catch (const pg::Failure &error) {
      if (source_ != nullptr || !MayComeBack(error.sqlstate())) throw;
      failure.emplace(error);
    }
    source_.reset();
    connection_.reset();
    TimestampTz now = GetCurrentTimestamp();
    if (lost_since == 0) lost_since = now;
    if (TimestampDifferenceMilliseconds(lost_since, now) >= settings::reconnect_timeout_ms)
      throw pg::Failure(failure->sqlstate(), failure->message(), failure->detail(),
                        "The run keeps its position: CALL redis_migrate.run again when Redis is back.");
    pg::Sleep(pause);
  }
}

}  // namespace prm::migrate
