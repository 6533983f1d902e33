// Writes values of keys to a Redis, a transaction for each batch.
#pragma once

#include "connect/server.h"
#include "sink/whole_value.h"

namespace prm {

class ReverseSender {
 public:
  // Connects with the credentials of the current user. The caller has committed. Errors: those of
  // ServerConnection and of the server; 0A000 for a cluster. instance: see pg::ThisInstance.
  ReverseSender(const std::string &migration, const std::string &server, std::string instance);

  // A key of a database, and the value that it is to have. An empty collection: none. Errors: kUnsupported,
  // for a value that the server cannot have; nothing is added then.
  Status Add(int db, const std::string &key, const sink::WholeValue &value);

  // Forgets what was added.
  void Clear() {
    commands_.clear();
    db_ = 0;
  }

  // The last batch that had been sent to the server at first; nothing: none.
  const std::optional<int64> &position() const { return position_; }
  // Whether that was sent by another instance, and is none of ours.
  bool is_of_others() const { return is_of_others_; }

  // Sends what was added as one transaction, which begins with SET redis_migrate:position:{migration}
  // <instance>:<batch>, and waits for its end. Errors: 08006, 08000; 40001 if another connection has sent a
  // batch since the last one of this, so that what an ended process has left in its socket is never done
  // late; those of the server. After an error it has run nothing, or, for a command that it refuses only when
  // it runs it, the others.
  void Send(int64 batch);

 private:
  using Command = std::vector<std::string>;

  ServerConnection connection_;
  const std::string position_key_;
  const std::string mark_;  // before the batch
  sink::CommandAbilities abilities_;
  int db_ = 0;
  std::optional<int64> position_;
  bool is_of_others_ = false;
  std::vector<Command> commands_;
};

}  // namespace prm
