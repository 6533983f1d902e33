// Waits until the tables have all that the masters have.
#pragma once

#include "cutover/masters.h"
#include "mapping/catalog.h"

namespace prm {

class Barrier {
 public:
  Barrier(const Migration &migration, Oid owner) : migration_(migration), owner_(owner) {}

  // Waits until everything that was written before the call is applied. Commits. Errors: 57014 when that is
  // not so until then, by the monotonic clock; those of InStep.
  void WaitForNow(Masters &masters, int64 until_ms) const;

  // As WaitForNow, but until nothing has been written while it waited: a pause holds writes back, not the
  // bytes by which a master calls its replicas. Returns the points at which the masters stood still.
  std::vector<redis::ReplicationPoint> WaitForStandstill(Masters &masters, int64 until_ms) const;

 private:
  void WaitFor(const std::vector<redis::ReplicationPoint> &points, int64 until_ms) const;

  const Migration &migration_;
  Oid owner_;
};

}  // namespace prm
