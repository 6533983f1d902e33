// CALL redis_migrate.receive_stream(…): keeps the replication link of a live run. It always reads, so that
// the server need not hold what is not applied yet, and it acknowledges only what is on disk.
#include "connect/outage.h"
#include "connect/server.h"
#include "connect/snapshot_file.h"
#include "connect/spool_files.h"
#include "live/feed_receiver.h"
#include "live/link_nodes.h"
#include "live/link_report.h"
#include "live/live_links.h"
#include "live/live_record.h"
#include "live/seed.h"
#include "live/sole_link.h"
#include "pg/arguments.h"
#include "pg/background.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "redis/replication_link.h"
#include "run/run_record.h"
#include "source/named_keys.h"
#include "source/snapshot.h"
#include "stream/link_time.h"

namespace prm {
namespace {

using pg::Failure;
using pg::Spi;
namespace settings = pg::settings;

constexpr int64 kAcknowledgeEveryMs = 1000;
constexpr long kReadWaitMs = 200;
constexpr long kFirstPauseMs = 200;
constexpr long kLongestPauseMs = 5000;
constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kLookForRoomBytes = 4 * 1024 * 1024;

class Receiver {
 public:
  Receiver(int64 run_id, int link, const std::string &migration)
      : record_(run_id, link),
        files_(run_id, link),
        report_(record_, migration),
        name_(migration),
        buffer_(kReadBytes, '\0') {
    server_ = LoadMigration(name_).server;
    nodes_.emplace(server_);
    sole_link_.emplace(name_, run_id);
    if (std::optional<LinkStatus> const noted = record_.ReadLink()) status_.nodes = noted->nodes;
    Spi::Commit();
    writer_ = pg::ValueOrThrow(stream::StreamSpoolWriter::Open(files_));
  }

  // Until nobody wants the link any more, or a full sync is needed, or an error that neither passes by itself
  // nor once somebody has changed what is refused.
  void Run() {
    long pause_ms = kFirstPauseMs;
    while (!is_done_ && report_.IsWanted()) {
      status_.state = "connecting";
      Note();
      try {
        if (Connect()) Receive();
        pause_ms = kFirstPauseMs;
      } catch (const Failure &failure) {
        bool const was_streaming = status_.state == "streaming";
        status_.state = "connecting";
        status_.sqlstate = failure.sqlstate();
        status_.message = IsRefusal(failure.sqlstate()) ? WithKind(failure) : failure.message();
        // Whoever reads the state of the link has nothing but its message.
        if (!failure.hint().empty()) status_.message += ". " + failure.hint();
        link_.reset();
        connection_.reset();
        ++status_.reconnects;
        Note();
        if (!MayComeBack(failure.sqlstate()) && !IsRefusal(failure.sqlstate())) throw;
        if (was_streaming) pause_ms = kFirstPauseMs;
        pg::Sleep(pause_ms);
        pause_ms = std::min(pause_ms * 2, kLongestPauseMs);
      }
    }
  }

 private:
  void Note() { report_.Note(status_); }

  // Opens the link where the spool ends. False: the server cannot go on from there.
  bool Connect() {
    std::optional<LivePosition> const applied = record_.ReadLowest();
    Spi::Commit();
    since_ms_ = received_at_ms_ != 0 ? received_at_ms_ : applied ? applied->received_at_ms : pg::NowMs();
    std::optional<redis::ReplicationPoint> from = writer_->end();
    // A crash of the machine may have lost the end of the spool, but nothing that was applied. In a restored
    // database, the files may be older or newer than the position.
    bool const is_spool_lost =
        applied && pg::ValueOrThrow(stream::StreamSpoolReader::Open(files_, applied->point)) == nullptr;
    if (is_spool_lost && !applied->is_loaded)
      return NeedFullSync("the snapshot that was being loaded is gone");
    if (is_spool_lost) from = applied->point;
    std::optional<stream::Seed> const seed = from ? std::nullopt : FindSeed();
    if (seed) from = seed->point;
    connection_ = std::make_unique<ServerConnection>(server_, GetUserId(), status_.nodes);
    Spi::Commit();
    bool const is_cluster = !connection_->deployment().seeds.empty();
    if (is_cluster == status_.nodes.empty())
      return NeedFullSync("the server is a cluster now, or is none any more");
    if (!connection_->is_open()) return NeedFullSync("a master of the cluster has no slots any more");
    if (seed && is_cluster)
      throw Failure(ERRCODE_FEATURE_NOT_SUPPORTED, "a seed is for one server",
                    "Server \"" + server_ + "\" is a cluster.");
    if (const redis::ClusterShard *shard = connection_->topology().ShardOf(connection_->node().id))
      status_.nodes = NodesOf(*shard);
    sole_link_->Require(**connection_);
    if (seed) RequireContinues(**connection_, *seed);
    NoteBacklog();
    if (seed) since_ms_ = 0;  // of a file it is not known
    int64 const asked_ms = pg::NowMs();
    auto link = redis::ReplicationLink::Open(**connection_, from);
    if (!link.ok() && link.error().code == ErrorCode::kPermissionDenied)
      throw Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, link.error().message, link.error().detail,
                    "Grant the user both rights of a replica with ACL SETUSER ... +psync +replconf. They "
                    "give it all keys, whatever key patterns it has.");
    link_ = pg::ValueOrThrow(std::move(link));
    if (link_->has_snapshot() && seed)
      throw Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "Redis at " + link_->address() + " does not go on from the dump file",
                    "It did when it was asked before.", "Run BGSAVE, and start with the new file.");
    // A server that has the same history lacks nothing.
    if (link_->has_snapshot() && from && link_->point().id != from->id)
      LiveRecord::NoteLostKeys(name_, "Redis came back with another history");
    if (link_->has_snapshot() && from)
      return NeedFullSync("Redis at " + link_->address() + " does not have the stream any more from offset " +
                          std::to_string(from->offset) + " on");
    if (link_->has_snapshot()) {
      since_ms_ = asked_ms;
      ReceiveSnapshot();
    } else {
      if (seed || is_spool_lost) pg::ThrowIfError(writer_->Begin(*from, seed.has_value()));
      if (link_->point().id != from->id) pg::ThrowIfError(writer_->ChangeId(link_->point().id));
    }
    LiveRecord::ForgetSeed(name_);  // it was taken, or is not needed
    Spi::Commit();
    return true;
  }

  // The dump file that the run is to begin with, once it is here.
  std::optional<stream::Seed> FindSeed() {
    auto const path = LiveRecord::ReadSeed(name_);
    Spi::Commit();
    if (!path) return std::nullopt;
    BeginSnapshot();
    return TakeSeed(*path, server_, record_.run_id());
  }

  // How much of the stream the server keeps; unknown if INFO is refused.
  void NoteBacklog() {
    auto const info = (*connection_)->Command({"INFO", "replication"});
    if (!info.ok()) return;
    auto const bytes = redis::ServerInfo(info.value().String().value_or("")).GetInteger("repl_backlog_size");
    if (bytes) status_.backlog_bytes = static_cast<uint64>(*bytes);
  }

  bool NeedFullSync(const std::string &why) {
    status_.state = "full sync needed";
    status_.sqlstate.reset();
    status_.message = why;
    link_.reset();
    connection_.reset();
    Note();
    is_done_ = true;
    return false;
  }

  void BeginSnapshot() {
    status_.state = "snapshot";
    status_.sqlstate.reset();
    status_.message.clear();
    Note();
  }

  void ReceiveSnapshot() {
    BeginSnapshot();
    auto snapshot = SnapshotFile::Create();
    uint64_t const most = settings::max_snapshot_size_mb < 0
                              ? std::numeric_limits<int64_t>::max()
                              : static_cast<uint64_t>(settings::max_snapshot_size_mb) * 1024 * 1024;
    Status const received = source::ReceiveSnapshot(*link_, *snapshot, most);
    if (!received.ok() && received.error().code == ErrorCode::kTooLarge)
      throw Failure(ERRCODE_PROGRAM_LIMIT_EXCEEDED, received.error().message, received.error().detail,
                    "Raise pg_redis_migrate.max_snapshot_size.");
    pg::ThrowIfError(received);
    snapshot->KeepFor(record_.run_id(), record_.link());
    pg::ThrowIfError(writer_->Begin(link_->point(), true));
  }

  // Reads the stream until there is no room for it, or the run has ended.
  void Receive() {
    status_.state = "streaming";
    status_.sqlstate.reset();
    status_.message.clear();
    status_.replication_id = link_->point().id;
    missed_ = 0;
    Acknowledge();
    NoteConnected();
    // What was missed arrives at once, or is counted: the position would seem to be in step with the server.
    bool is_noted = false;
    int64 const began_ms = pg::MonotonicMs();
    size_t unlooked = 0;  // bytes since it was looked whether there is room
    for (int64 acknowledged_ms = began_ms;;) {
      if (!is_noted && link_->point().offset >= missed_) {
        is_noted = true;
        Acknowledge();
        Note();
      }
      size_t const read = pg::ValueOrThrow(link_->ReadStream(buffer_.data(), buffer_.size(), kReadWaitMs));
      if (read > 0) {
        received_at_ms_ = pg::NowMs();
        uint64 const end = link_->point().offset;
        pg::ThrowIfError(
            writer_->Append(Bytes(buffer_.data(), read),
                            time_.Read(end - read, end, read < buffer_.size(), received_at_ms_)));
      }
      // More can come within a second than there is room for.
      unlooked += read;
      bool const is_full = unlooked >= kLookForRoomBytes && IsSpoolFull(1);
      if (unlooked >= kLookForRoomBytes) unlooked = 0;
      int64 const now_ms = pg::MonotonicMs();
      if (!is_full && now_ms - acknowledged_ms < kAcknowledgeEveryMs && !link_->wants_acknowledgement())
        continue;
      acknowledged_ms = now_ms;
      Acknowledge();
      is_noted = is_noted || now_ms - began_ms >= kAcknowledgeEveryMs;
      if (is_noted) Note();
      nodes_->Refresh(status_.nodes);
      if (!report_.IsWanted()) return;
      if (IsSpoolFull(1)) return WaitForRoom();
    }
  }

  // Notes that everything that the server has sent by now arrives late, and up to where that is.
  void NoteConnected() {
    ServerConnection other(server_, GetUserId(), status_.nodes);
    Spi::Commit();
    if (!other.is_open())
      throw Failure(ERRCODE_CONNECTION_FAILURE, "a master of the cluster has no slots any more");
    auto const keys = pg::ValueOrThrow(source::NamedKeys::Open(*other, {}));
    redis::ReplicationPoint const now = pg::ValueOrThrow(keys->FetchPoint());
    time_.Connect(now.offset, since_ms_, pg::NowMs());
    // The offsets of another history say nothing of this one.
    if (now.id == link_->point().id) missed_ = now.offset;
  }

  void Acknowledge() {
    pg::ThrowIfError(writer_->Sync());
    link_->Acknowledge(writer_->durable_offset());
    // Over a slow line most of what was missed may still be at the server.
    status_.received_offset = std::max(writer_->end()->offset, missed_);
    status_.durable_offset = writer_->durable_offset();
    status_.spool_bytes = pg::ValueOrThrow(writer_->CountBytes());
    if (received_at_ms_ != 0) status_.received_at_ms = received_at_ms_;
  }

  bool IsSpoolFull(double share) {
    double const most = static_cast<double>(settings::max_spool_size_mb) * 1024 * 1024;
    return static_cast<double>(pg::ValueOrThrow(writer_->CountBytes())) >= most * share;
  }

  // The server keeps the stream in its backlog as long as there is room.
  void WaitForRoom() {
    link_.reset();
    connection_.reset();
    status_.state = "spool full";
    status_.message = "the changes that wait take pg_redis_migrate.max_spool_size";
    ++status_.reconnects;
    for (; report_.IsWanted() && IsSpoolFull(0.75); pg::Sleep(kLongestPauseMs / 10)) {
      status_.spool_bytes = pg::ValueOrThrow(writer_->CountBytes());
      Note();
    }
    status_.message.clear();
  }

  LiveRecord record_;
  SpoolFiles files_;
  LinkReport report_;
  std::string name_;
  std::string server_;
  std::string buffer_;
  std::optional<SoleLink> sole_link_;
  std::optional<LinkNodes> nodes_;
  std::unique_ptr<stream::StreamSpoolWriter> writer_;
  std::unique_ptr<ServerConnection> connection_;
  std::unique_ptr<redis::ReplicationLink> link_;
  LinkStatus status_;
  stream::LinkTime time_;
  uint64 missed_ = 0;  // what the server had written when the link was connected ends there
  int64 received_at_ms_ = 0;
  int64 since_ms_ = 0;  // when it had everything, see LinkTime
  bool is_done_ = false;
};

}  // namespace
}  // namespace prm

// redis_migrate.receive_stream(run_id bigint, link integer): see the SQL comment. Returns when nobody wants
// the stream any more, or when it cannot be had without another snapshot. Errors: 2D000 in a transaction
// block, 42704 no such run of the caller's, 55000 when it is not under way or in a session, those of the
// server that will not pass by themselves, and those of files.
PRM_FUNCTION(receive_stream) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.receive_stream commits what it notes");
  if (MyBgworkerEntry == nullptr)
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "redis_migrate.receive_stream is for background workers");
  if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
    throw pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "run_id and link must not be null");
  pg::Spi spi(true);
  int64 const run_id = PG_GETARG_INT64(0);
  std::string migration;
  RunParameters parameters;
  RunRecord::Join(run_id, &migration, &parameters);
  if (parameters.source == "scan")
    ReceiveFeed(run_id, migration);
  else
    Receiver(run_id, PG_GETARG_INT32(1), migration).Run();
  PG_RETURN_VOID();
}
