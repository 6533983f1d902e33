// Asks a server for a snapshot of its data, as a replica does. Protocol: redis 7.0 src/replication.c,
// syncWithMaster and readSyncBulkPayload.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/status.h"
#include "redis/connection.h"

namespace prm::redis {

class SnapshotLink {
 public:
  // Introduces itself as a replica that wants the snapshot alone and can never become master, and waits until
  // the snapshot begins: the server forks first, and may wait some seconds for other replicas that want the
  // same. No command may be sent on the connection afterwards; it must outlive the link. Errors:
  // kPermissionDenied (no right to PSYNC or REPLCONF), kUnavailable (loading, or a replica without its
  // master), kServerError, kProtocol, those of Connection.
  static Result<std::unique_ptr<SnapshotLink>> Open(Connection& connection);

  // Waits for the next bytes of the snapshot and copies at most `size`; 0 after the last where the server has
  // told how many there are. Errors: those of Connection::ReadRaw.
  Result<size_t> Read(char* to, size_t size);

  // The bytes of the snapshot; nothing where the server does not know them: then end_mark() follows the last.
  std::optional<uint64_t> size() const { return size_; }
  const std::string& end_mark() const { return end_mark_; }

  const std::string& address() const { return connection_.address(); }

 private:
  explicit SnapshotLink(Connection& connection) : connection_(connection) {}

  Status Introduce();
  Result<std::string> ReadLine();
  Status ReadSyncLine();
  Status ReadSizeLine();

  Connection& connection_;
  std::optional<uint64_t> size_;
  std::string end_mark_;
  uint64_t left_ = 0;  // of size_
};

}  // namespace prm::redis
