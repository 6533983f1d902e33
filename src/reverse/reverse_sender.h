// Writes values of keys to a Redis, a transaction for each batch, or in a cluster for each slot of a batch.
#pragma once

#include "connect/server.h"
#include "redis/cluster_slots.h"
#include "sink/whole_value.h"

namespace prm {

// So long is waited for slots of a cluster that are being moved, while none is done.
constexpr int64 kMostMoveMs = 5000;
// After so long others go on without them, if no more than so many are left.
constexpr int64 kPatienceMs = 500;
constexpr size_t kMostHeld = 64;

class ReverseSender {
 public:
  // Connects to the server, or to the masters of a cluster, with the credentials of the current user.
  // Commits. Errors: those of ServerConnection and redis::FindTopology, and of the server. instance: see
  // pg::ThisInstance.
  static std::unique_ptr<ReverseSender> Open(const std::string &migration, const std::string &server,
                                             const std::string &instance);
  virtual ~ReverseSender() = default;

  virtual bool is_cluster() const = 0;

  struct Position {
    bool is_of_others = false;  // it was sent by another instance
    int64 batch = 0;
  };
  // The last batch that the server has of each slot; a server that is no cluster has slot 0 alone. Is called
  // once, before Send: what others send from then on is noticed. Of slots that no node of a cluster can tell
  // of now, those that are needed are waited for. Errors: those of the server; 57P03 if that takes too long.
  virtual std::map<size_t, Position> FetchPositions(const redis::Slots &needed) = 0;

  // A key of a database, and the value that it is to have. An empty collection: none. Errors: kUnsupported,
  // for a value that the server cannot have; nothing is added then.
  Status Add(int db, const std::string &key, const sink::WholeValue &value);

  // Forgets what was added.
  void Clear() {
    commands_.clear();
    db_ = 0;
  }

  // The slots of what was added.
  redis::Slots slots() const;

  // Sends what was added as one transaction, in a cluster as one for each slot, which begins with SET of a
  // position to <instance>:<batch>, and waits for its end. Returns the slots of a cluster that take no
  // transaction now, because they are being moved: nothing was done there. Errors: 08006, 08000; 40001 if
  // another connection has sent a batch since the last one of this, so that what an ended process has left in
  // its socket is never done late; 57P03 while slots cannot be written to for another reason, or many are
  // being moved; those of the server. After an error a transaction has run nothing, or, for a command that
  // the server refuses only when it runs it, the others.
  virtual redis::Slots Send(int64 batch) = 0;

  // The slot of a key. A server that is no cluster has slot 0 alone.
  virtual size_t SlotOf(const std::string &key) const = 0;

  // Slots that Send has returned of late: each is tried again after a while. And why.
  virtual redis::Slots held() const { return {}; }
  virtual std::string WhyHeld() const { return {}; }

  // Gives these slots the position of a batch that is not older than any that was sent. What another process
  // has sent there is done when it returns, or never will be. The same errors.
  virtual void End(int64 batch, const redis::Slots &slots) = 0;

  // Removes the positions of these slots, but for those that no node of a cluster serves now. The same
  // errors.
  virtual void RemovePositions(const redis::Slots &slots) = 0;

 protected:
  using Command = std::vector<std::string>;

  ReverseSender(std::string migration, std::string instance)
      : migration_(std::move(migration)), mark_(std::move(instance) + ":") {}

  std::string MarkOf(int64 batch) const { return mark_ + std::to_string(batch); }
  Position PositionOf(Bytes text) const;

  // Errors: those of MULTI and EXEC.
  static void RequireTransactions(redis::Connection &connection);
  // The position that GET has answered; nothing: there is none. Errors: 08P01.
  static std::optional<Bytes> TextOf(const redis::Connection &connection, const redis::Reply &reply);

  // Queues a transaction. Returns the names of its commands.
  static std::vector<std::string> Append(redis::Connection &connection, const std::string &position_key,
                                         const std::string &mark, const std::vector<Command> &commands);
  // Receives its replies. Returns why it has not run, or not wholly. Errors: those of Connection::Receive.
  static std::optional<pg::Failure> Receive(redis::Connection &connection, const std::string &position_key,
                                            const std::vector<std::string> &names);

  const std::string migration_;
  sink::CommandAbilities abilities_;
  std::map<size_t, std::vector<Command>> commands_;  // by slot

 private:
  const std::string mark_;  // before the batch
  pg::LatchWaiter interrupts_;
  int db_ = 0;
};

}  // namespace prm
