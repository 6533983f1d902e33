// The masters of a server: what a cutover does to all of them.
#pragma once

#include "connect/server.h"
#include "pg/pg.h"
#include "redis/replication_point.h"
#include "source/named_keys.h"

namespace prm {

// A user of Redis, and its rules for commands on a master, as ACL GETUSER shows them.
struct FencedUser {
  std::string node;     // the id of a master of a cluster; otherwise empty
  std::string address;  // of the master
  std::string name;
  std::string rules;           // before @write was taken
  std::string fenced_rules;    // afterwards; empty: not known
  std::string run_id = {};     // of the process that the master was then
  bool has_selectors = false;  // which may permit what these rules do not
};

// Whether the rules of a user are still those that the fence has left.
bool IsFenced(const FencedUser &user, const std::string &rules);

// Users who were to get their rights back, by what became of them.
struct ReturnedUsers {
  std::vector<FencedUser> done;     // they have them
  std::vector<FencedUser> changed;  // somebody else has given them other rules since
  std::vector<FencedUser> gone;     // they, or their masters, are not there any more
};

// No function may be called in a transaction, and after an error only the destructor.
class Masters {
 public:
  // Connects to each. Commits. user: whose credentials. Errors: those of ServerConnection and
  // redis::FindTopology; 55000 if the server is a replica.
  Masters(const std::string &server, Oid user);
  // As above, but leaves out masters of a cluster that cannot be reached; each is one of the failures.
  Masters(const std::string &server, Oid user, std::vector<pg::Failure> &failures);

  // Whether our user may do all that a cutover with this fence will, without doing any of it. users: whom it
  // will fence. Errors: 42501 with the rights that are missing, and those of Connection::Command.
  void RequireRights(const std::string &fence, const std::vector<std::string> &users);

  // CLIENT PAUSE … WRITE, of Redis 6.2: writes, scripts and GETEX are held back for so long, or until Resume.
  // Errors: those of Connection::Command.
  void Pause(int64 most_ms);
  // Tries it at each of them. Returns what failed.
  std::vector<pg::Failure> Resume();

  // Where the history of each is.
  std::vector<redis::ReplicationPoint> FetchPoints();

  // Asks ACL GETUSER for these users. Errors: 42704 no such user; 22023 for the user of our own
  // connections; 0A000 for one who has selectors, which may permit what -@write takes.
  std::vector<FencedUser> FetchUsers(const std::vector<std::string> &names);
  // This user as each of them has it; a master that has no such user is left out, and so is one that does not
  // tell: it is one of the failures.
  std::vector<FencedUser> FindUsers(const std::string &name, std::vector<pg::Failure> &failures);
  // Whether whoever connects without a password may write, on one of them, as user default.
  bool LetAnybodyWrite();
  // ACL SETUSER … -@write. Notes the rules that result.
  void TakeWrite(std::vector<FencedUser> &users);
  // Sets the rules for commands to what they were, unless they are not what TakeWrite has left. Tries it for
  // each; failures: what failed, those of the constructor included: a user of a master that could not be
  // reached is in none of the lists.
  ReturnedUsers GiveBack(const std::vector<FencedUser> &users, std::vector<pg::Failure> &failures);
  // CLIENT KILL TYPE normal: all connections but these, replicas and subscribers.
  void KillClients();

  // Whether the slot of a key is that master's, in a cluster.
  bool Has(size_t number, Bytes key) const;

  size_t size() const { return connections_.size(); }
  ServerConnection &operator[](size_t number) { return *connections_[number]; }

 private:
  void Connect(const std::string &server, Oid user, std::vector<pg::Failure> *failures);

  std::vector<std::unique_ptr<ServerConnection>> connections_;
  std::vector<std::unique_ptr<source::NamedKeys>> points_;  // tell them, by the same connections
  std::set<std::string> unreached_;                         // ids of nodes
};

}  // namespace prm
