// Writes values of keys to the masters of a cluster, a transaction for each slot.
//
// A transaction belongs to one slot, and so does the key that says which batch the slot has. EXEC forgets all
// that was watched, so each transaction of a connection watches its own position, and begins only once that
// is seen to be the one that this feed has left: what an ended process has left in its socket finds another
// one, or has lost its watch.
#pragma once

#include "reverse/reverse_sender.h"

namespace prm {

class ClusterSender : public ReverseSender {
 public:
  // Connects to all masters. Commits. Errors: those of redis::FindTopology and the connections.
  ClusterSender(const std::string &migration, const redis::Deployment &deployment,
                const std::string &instance);

  bool is_cluster() const override { return true; }
  std::map<size_t, Position> FetchPositions() override;
  // Errors also: 08006 when a node has become a master, of which it is not known what it has.
  void Send(int64 batch) override;
  void End(int64 batch, const redis::Slots &slots) override;

 protected:
  size_t SlotOf(const std::string &key) const override { return redis::KeySlot(key); }

 private:
  struct Master {
    pg::ExternalDescriptor descriptor;
    std::unique_ptr<redis::Connection> connection;
  };
  // The transactions of one master, one after the other.
  struct Chain {
    redis::Connection *connection = nullptr;
    std::vector<size_t> slots = {};
    size_t next = 0;
    bool is_watched = false;              // the position of the next slot
    std::vector<std::string> names = {};  // of the commands of its transaction
  };

  void FindMasters();
  redis::Connection &ConnectionOf(const std::string &master);
  std::map<std::string, std::vector<size_t>> ByMaster(const redis::Slots &slots);
  template <typename Pass>
  void UntilDone(redis::Slots left, Pass pass);
  template <typename Ask, typename Take>
  void AskEach(redis::Slots &left, Ask ask, Take take);
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
  std::map<std::string, std::unique_ptr<Master>> masters_;
  std::vector<std::string> positions_;  // of slots, as the cluster has them; empty: none
  std::optional<pg::Failure> refusal_;  // the last, of a slot that is to be tried again
};

}  // namespace prm
