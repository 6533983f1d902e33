// Tells whether the tables of a live run, whatever it follows Redis by, hold all changes made before a
// moment.
#pragma once

#include "live/feed_in_step.h"
#include "live/in_step.h"

namespace prm {

class LiveMoment {
 public:
  // The moment is now. source: of the migration. owner, and errors: those of InStep; none if the source is
  // scan. Commits.
  LiveMoment(const std::string &migration, const std::string &source, Oid owner);
  // The moment is that of these points; if the source is scan, it is now.
  LiveMoment(const std::string &migration, const std::string &source, Oid owner,
             const std::vector<redis::ReplicationPoint> &points);

  // Whether it is reached. Commits. Errors: as above.
  bool IsReached();
  // Whether, when that was asked, it was only not reached because keys wait to be read again, or a mapping is
  // being filled: keys of a slot that is being moved are read when the move has ended. If the source is scan,
  // that is not known: false.
  bool IsReachedButForKeys() const;

 private:
  std::optional<FeedInStep> by_feed_;
  std::optional<InStep> by_stream_;
};

}  // namespace prm
