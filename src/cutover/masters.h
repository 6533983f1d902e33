// The masters of a server: what a cutover does to all of them.
#pragma once

#include "connect/server.h"
#include "pg/pg.h"
#include "redis/replication_point.h"

namespace prm {

// A user of Redis, and the rules for commands that it had on a master before @write was taken.
struct FencedUser {
  std::string node;  // the id of a master of a cluster; otherwise empty
  std::string name;
  std::string rules;  // as ACL GETUSER shows them
};

// No function may be called in a transaction, and after an error only the destructor.
class Masters {
 public:
  // Connects to each. Commits. user: whose credentials. Errors: those of ServerConnection and
  // redis::FindTopology; 55000 if the server is a replica.
  Masters(const std::string &server, Oid user);

  // CLIENT PAUSE … WRITE, of Redis 6.2: writes, scripts and GETEX are held back for so long, or until Resume.
  // Errors: those of Connection::Command.
  void Pause(int64 most_ms);
  void Resume();

  // Where the history of each is.
  std::vector<redis::ReplicationPoint> FetchPoints();

  // What ACL GETUSER tells of these users. Errors: 42704 no such user; 22023 for the user of our own
  // connections; 0A000 for one who has selectors, which may permit what -@write takes.
  std::vector<FencedUser> FetchUsers(const std::vector<std::string> &names);
  // ACL SETUSER … -@write.
  void TakeWrite(const std::vector<FencedUser> &users);
  // Sets the rules for commands to what they were; a user that is gone, or whose master is, stays so.
  void GiveBack(const std::vector<FencedUser> &users);
  // CLIENT KILL TYPE normal: all connections but these, replicas and subscribers.
  void KillClients();

  size_t size() const { return connections_.size(); }
  ServerConnection &operator[](size_t number) { return *connections_[number]; }

 private:
  std::vector<std::unique_ptr<ServerConnection>> connections_;
};

}  // namespace prm
