// Writes rows that have changed here back to Redis.
#pragma once

#include "pg/session_lock.h"
#include "reverse/outbox.h"
#include "reverse/reverse_sender.h"

namespace prm {

class ReverseFeed {
 public:
  // Of the mappings of a migration whose outboxes are installed. Commits. Errors: 42704, 42501 not the owner,
  // 55000 if it was not started, 55006 if another process feeds, those of FindReverses and ReverseSender.
  explicit ReverseFeed(const std::string &migration);

  // Sends what is noted, and all rows where that is needed. Returns how many changes it has sent. Holds no
  // transaction while it waits for the server. Errors: those of ReverseSender, and of reverse queries.
  int64 SendAll();

  // Whether it is to go on. Commits.
  bool IsWanted();

 private:
  int64 SendOutbox(const ReverseMapping &reverse);
  void SendAllRows(const ReverseMapping &reverse);
  // Reads the rows with these names and adds their keys to the sender. only_missing: only names without rows.
  void AddKeys(const ReverseMapping &reverse, const std::vector<RowName> &names, bool only_missing);
  std::set<std::string> FindRejected(const ReverseMapping &reverse, const std::vector<std::string> &keys);
  void CommitDurably(const ReverseMapping &reverse);
  void Note(const ReverseMapping &reverse, int64 changes);

  std::string migration_;
  std::unique_ptr<pg::SessionLock> lock_;
  std::vector<ReverseMapping> reverses_;
  std::unique_ptr<ReverseSender> sender_;
  std::unique_ptr<ServerConnection> scan_;
  std::string server_;
  int64 batch_ = 0;
  int limit_;
};

}  // namespace prm
