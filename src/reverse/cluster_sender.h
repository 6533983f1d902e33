// Writes values of keys to the masters of a cluster, a transaction for each slot.
//
// A transaction belongs to one slot, and so does the key that says which batch the slot has. EXEC forgets all
// that was watched, so each transaction of a connection watches its own position, and begins only once that
// is seen to be the one that this feed has left: what an ended process has left in its socket finds another
// one, or has lost its watch. That is a round trip for each transaction; so a master has several connections.
#pragma once

#include "reverse/reverse_sender.h"

namespace prm {

class ClusterSender : public ReverseSender {
 public:
  // Connects to all masters. Commits. Errors: those of redis::FindTopology and the connections.
  ClusterSender(const std::string &migration, const redis::Deployment &deployment,
                const std::string &instance);

  bool is_cluster() const override { return true; }
  std::map<size_t, Position> FetchPositions(const redis::Slots &needed) override;
  // Errors also: 08006 when a node has become a master, of which it is not known what it has.
  redis::Slots Send(int64 batch) override;
  void End(int64 batch, const redis::Slots &slots) override;
  void RemovePositions(const redis::Slots &slots) override;

  size_t SlotOf(const std::string &key) const override { return redis::KeySlot(key); }
  redis::Slots held() const override;
  std::string WhyHeld() const override;

 private:
  struct Link {
    pg::ExternalDescriptor descriptor;
    std::unique_ptr<redis::Connection> connection;
  };
  // Transactions of one connection, one after the other.
  struct Chain {
    std::unique_ptr<Link> *link;
    std::vector<size_t> slots = {};
    size_t next = 0;
    bool is_watched = false;              // the position of the next slot
    std::vector<std::string> names = {};  // of the commands of its transaction

    redis::Connection &connection() const { return *(*link)->connection; }
  };

  void FindMasters();
  std::unique_ptr<Link> &LinkOf(const std::string &master, size_t number);
  std::map<std::string, std::vector<size_t>> ByMaster(const redis::Slots &slots);
  template <typename Pass, typename MayStay>
  void UntilDone(redis::Slots &left, Pass pass, MayStay may_stay);
  template <typename Ask, typename Take>
  void AskEach(redis::Slots &left, Ask ask, Take take);
  redis::Connection *ImporterOf(const redis::Connection &from, const redis::Reply &reply);
  std::vector<Chain> MakeChains(const redis::Slots &slots);
  void SendChains(const std::string &mark, redis::Slots &left);
  void Append(Chain &chain, const std::string &mark);
  bool Receive(Chain &chain, const std::string &mark, redis::Slots &left);
  bool TakeWatch(Chain &chain);
  bool Leave(const redis::Connection &connection, const redis::Reply &reply);
  std::string PositionKey(size_t slot) const;

  redis::Deployment deployment_;
  pg::LatchWaiter waiter_;
  const std::vector<std::string> tags_;           // of slots
  std::vector<std::string> owners_;               // of slots: ids of masters; empty: nobody
  std::map<std::string, redis::Endpoint> nodes_;  // the masters that have slots
  std::map<std::string, std::vector<std::unique_ptr<Link>>> links_;  // of masters
  std::map<std::string, std::unique_ptr<Link>> importers_;           // by their addresses
  std::vector<std::string> positions_;  // of slots, as the cluster has them; empty: none
  std::optional<pg::Failure> refusal_;  // the last, of a slot that is to be tried again
  redis::Slots held_;                   // slots that Send has returned
  int64 held_until_ms_ = 0;
};

}  // namespace prm
