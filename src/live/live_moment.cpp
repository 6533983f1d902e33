#include "live/live_moment.h"

namespace prm {

LiveMoment::LiveMoment(const std::string &migration, const std::string &source, Oid owner) {
  if (source == "scan")
    by_feed_.emplace(migration);
  else
    by_stream_.emplace(migration, owner);
}

LiveMoment::LiveMoment(const std::string &migration, const std::string &source, Oid owner,
                       const std::vector<redis::ReplicationPoint> &points) {
  if (source == "scan")
    by_feed_.emplace(migration);
  else
    by_stream_.emplace(migration, owner, points);
}

bool LiveMoment::IsReached() { return by_feed_ ? by_feed_->IsReached() : by_stream_->IsReached(); }

bool LiveMoment::IsReachedButForKeys() const { return by_stream_ && by_stream_->is_applied(); }

}  // namespace prm
