// The connection of a replica to the server that it follows: a snapshot of the data, the stream of commands
// that change it, or both. Protocol: redis 7.0 src/replication.c, syncWithMaster and readSyncBulkPayload.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/status.h"
#include "redis/connection.h"
#include "redis/replication_point.h"

namespace prm::redis {

// Introduces itself as a replica that can never become master: it has no port. No command may be sent on the
// connection after Open; it must outlive the link. A user needs the rights PSYNC and REPLCONF, and none to
// keys. The server counts the link as a replica: for WAIT, for min-replicas-to-write, in INFO.
class ReplicationLink {
 public:
  // Asks for a snapshot alone. Waits until it begins: the server forks first, and may wait some seconds for
  // other replicas that want the same. Errors: kPermissionDenied (no right to PSYNC or REPLCONF),
  // kUnavailable (loading, or a replica without its master), kServerError, kProtocol, those of Connection.
  static Result<std::unique_ptr<ReplicationLink>> OpenForSnapshot(Connection& connection);

  // Asks for the stream from a point on, or with nullopt for a snapshot and the stream that follows it. A
  // server that no longer has the stream from there sends a snapshot, too, from Redis 7.0 on one without
  // keys; this waits until it begins.
  // Errors: those of OpenForSnapshot.
  static Result<std::unique_ptr<ReplicationLink>> Open(Connection& connection,
                                                       const std::optional<ReplicationPoint>& from);

  // Whether a snapshot comes first: read all of it with ReceiveSnapshot (source/snapshot.h) before the
  // stream. It holds what the stream up to point() has done.
  bool has_snapshot() const { return has_snapshot_; }

  // How much of the stream has been read. After Open its id is that of what follows: another one than asked
  // for if the server has become master since, with the same history up to the offset asked for.
  const ReplicationPoint& point() const { return point_; }

  // Waits for the next bytes of the snapshot and copies at most `size`; 0 after the last where the server has
  // told how many there are. Errors: those of Connection::ReadRaw.
  Result<size_t> ReadSnapshot(char* to, size_t size);

  // The bytes of the snapshot; nothing where the server does not know them: then end_mark() follows the last.
  std::optional<uint64_t> snapshot_size() const { return size_; }
  const std::string& end_mark() const { return end_mark_; }

  // Bytes that ReadSnapshot returned and that belong to the stream: ReadStream returns them first.
  void PutBack(Bytes bytes) { put_back_.insert(0, bytes); }

  // Copies at most `size` of the next bytes of the stream, sends what Acknowledge has queued and waits at
  // most wait_ms for both. 0: nothing came. Servers send a PING every ten seconds, so that silence for the
  // command_timeout_ms of the connection is kTimeout. Other errors: those of Connection::ReadRaw.
  Result<size_t> ReadStream(char* to, size_t size, long wait_ms);

  // Whether the server has asked for an acknowledgement since the last one (WAIT, or a planned fail-over).
  // A value may look like the question: the answer does no harm.
  bool wants_acknowledgement() const { return wants_acknowledgement_; }

  // Tells the server that the stream up to this offset is durable here; ReadStream sends it. To be called
  // every second from the end of the snapshot on: the server begins the stream after the first one, and
  // closes the link after 60 seconds without.
  void Acknowledge(uint64_t offset);

  const std::string& address() const { return connection_.address(); }

 private:
  explicit ReplicationLink(Connection& connection) : connection_(connection) {}

  enum class Wants { kSnapshot, kAll, kRest };

  Status Introduce(Wants wants);
  Status AskFor(const std::optional<ReplicationPoint>& from);
  Result<std::string> ReadLine();
  Status ReadSyncLine(const std::optional<ReplicationPoint>& from);
  Status ReadSizeLine();
  void FindQuestion(Bytes bytes);

  Connection& connection_;
  bool has_snapshot_ = false;
  ReplicationPoint point_;
  std::optional<uint64_t> size_;
  std::string end_mark_;
  uint64_t left_ = 0;  // of size_
  std::string put_back_;
  std::string tail_;  // the last bytes of the stream that was read, which a question may begin with
  bool wants_acknowledgement_ = false;
};

}  // namespace prm::redis
