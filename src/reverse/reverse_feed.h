// Writes rows that have changed here back to Redis.
#pragma once

#include "pg/session_lock.h"
#include "reverse/outbox.h"
#include "reverse/reverse_sender.h"

namespace prm {

// The lock that who feeds a migration has.
LOCKTAG ReverseFeedLock(const std::string &migration);

// The changes of a mapping are not noted any more.
class ReverseStopped : public pg::Failure {
 public:
  explicit ReverseStopped(const std::string &mapping)
      : Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the reverse feed of mapping \"" + mapping + "\" was stopped") {}
};

class ReverseFeed {
 public:
  // Of the mappings of a migration whose outboxes are installed. The caller has the lock of the feed.
  // Commits. Errors: 55000 if it was not started, those of FindReverses and ReverseSender.
  explicit ReverseFeed(const Migration &migration);

  // Sends a batch of what is noted by each mapping, and all rows where that is needed. Returns how many
  // changes are done. Holds no transaction while it waits for the server. Errors: those of ReverseSender, and
  // ReverseStopped.
  int64 SendSome();

  // Why the changes of a mapping wait, of which a row, or the reverse query, is at fault. It is tried again
  // after a while; other mappings go on.
  const std::optional<pg::Problem> &problem() const { return problem_; }

  // Looks for what nobody tells: whether partitions have changed. Commits.
  void Look();

 private:
  int64 SendOutbox(const ReverseMapping &reverse);
  void SendAllRows(const ReverseMapping &reverse);
  void RemoveKeysWithoutRows(const ReverseMapping &reverse);
  // Reads the rows with these names and adds their keys to the sender. Returns the names for which there was
  // no room.
  std::set<RowName> AddKeys(const ReverseMapping &reverse, const std::set<RowName> &names);
  // Adds those keys that have no row and are not rejected.
  void AddMissing(const ReverseMapping &reverse, const std::set<RowName> &names);
  std::set<std::string> FindRejected(const ReverseMapping &reverse, const std::set<RowName> &names);
  void CompareWithServer();
  int64 SendSome(const ReverseMapping &reverse);
  void CommitDurably(const ReverseMapping &reverse);
  void Send(const ReverseMapping &reverse, const std::vector<int64> &ids, int64 unfit);

  std::string migration_;
  std::vector<ReverseMapping> reverses_;
  std::unique_ptr<ReverseSender> sender_;
  std::string server_;
  std::map<int64, int64> held_until_ms_;  // mappings that wait
  std::optional<pg::Problem> problem_;
  int64 batch_ = 0;
  int64 untold_ = 0;  // rows of AddKeys that do not tell what their keys are
  int limit_;
};

}  // namespace prm
