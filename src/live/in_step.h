// Tells whether the tables of a live run hold all changes that a server made before a moment.
#pragma once

#include "pg/pg.h"
#include "redis/connection.h"
#include "redis/replication_point.h"

namespace prm {

class InStep {
 public:
  // The moment is now. owner: whose credentials are used to ask the server. Commits. Errors: those of
  // ServerConnection; 0A000 if the server does not tell the offset of its stream.
  InStep(std::string migration, Oid owner);
  // The moment is that of these points, one of each master.
  InStep(std::string migration, Oid owner, const std::vector<redis::ReplicationPoint> &points);

  // Whether the stream is applied up to that moment, and up to each later state in which a key that changed
  // before it has been read. Commits. Errors: as above.
  bool IsReached();
  // Whether, when that was asked, the stream was applied up to that moment: if so, IsReached waits for single
  // keys alone, and for those of mappings that are being filled.
  bool is_applied() const { return is_applied_; }

 private:
  void ReadServer();
  void AskServer();
  void HastenUpTo(int link, int64 offset) const;

  std::string migration_;
  Oid owner_;
  std::string server_;
  // The moment of one server, or of one master of a cluster.
  struct Moment {
    redis::ReplicationPoint point;
    // When the point was reached, the largest offset at which keys were read, or of a share.
    std::optional<int64> last_shown;
  };
  static redis::ReplicationPoint FetchPoint(redis::Connection &connection);

  std::vector<Moment> moments_;
  int64 asked_ms_ = 0;
  bool is_applied_ = false;
};

}  // namespace prm
