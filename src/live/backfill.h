// The keys of mappings that were added to a live run, or dropped from it, while it was stopped: they are
// looked for beside the stream, and read again.
#pragma once

#include "connect/server.h"
#include "live/link_watch.h"
#include "mapping/routing.h"
#include "source/reread_budget.h"

namespace prm {

class Backfill {
 public:
  // Finds out which patterns of a migration the link has not met the keys of. Its arguments must outlive it.
  // budget: is told what SCAN costs the server.
  Backfill(const Migration &migration, const Routing &routing, const LiveRecord &record,
           const LinkWatch &link, source::RereadBudget &budget);

  // Whether there are keys to look for, and it makes sense to do so now.
  bool IsDue() const;

  // Adds keys of such patterns from the next page of SCAN. True: there are no more. A server that was lost or
  // replaced, or does not have the stream up to `applied`, has it begin again a second later: what was found
  // by then is only read again. Waits for the server: the caller has committed. Commits. Errors: those of
  // ServerConnection and of SCAN that do not pass by themselves.
  bool FindMore(uint64 applied, std::vector<KeyId> &keys);

  // To be called when the keys are stored, or wait in live_key.
  void Finish() {
    patterns_.clear();
    connection_.reset();
  }

 private:
  bool Open(uint64 applied);
  bool HasReached(const redis::ReplicationPoint &point, uint64 applied) const;
  void TakePage(std::vector<KeyId> &keys);
  bool IsWanted(int db, Bytes key, Match &match) const;
  void BeginAgain();

  const Migration &migration_;
  const Routing &routing_;
  const LinkWatch &link_;
  source::RereadBudget &budget_;
  std::set<std::string> patterns_;
  std::vector<KeyPattern> dropped_;  // those of them that no mapping has any more
  std::unique_ptr<ServerConnection> connection_;
  std::string history_;         // the replication id of the server when the scan began
  std::vector<int> databases_;  // those that are left, the last one first
  std::optional<int> selected_;
  std::string cursor_;
  int64 not_before_ms_ = 0;
};

}  // namespace prm
