// The Redis that keys are restored to: a server, or the masters of a cluster.
#pragma once

#include "connect/outage.h"
#include "connect/server.h"
#include "sink/key_writer.h"
#include "source/rate_ceiling.h"

namespace prm {

class RestoreTarget {
 public:
  // Connects, to know that it can be done. Commits. Errors: those of ServerOptions and of a connection; 0A000
  // for a replica.
  RestoreTarget(const std::string &server, const sink::WriterOptions &options);

  // Writes the entries that are kRead, and waits for the server where it is not to be reached, or moves
  // slots, for pg_redis_migrate.reconnect_timeout. Holds no snapshot. result[i] is that of entries[i]; a key
  // that was being written when the connection was lost may count as existing. Errors: those of KeyWriter.
  void Write(const std::vector<source::Entry> &entries, std::vector<sink::WrittenKey> &result);

  // How many keys went by commands since the last call.
  uint64_t TakeByCommands() { return std::exchange(by_commands_, 0); }

 private:
  struct Node {
    pg::ExternalDescriptor descriptor;
    pg::LatchWaiter waiter;
    std::unique_ptr<redis::Connection> connection;
    std::optional<sink::KeyWriter> writer;
  };
  bool is_cluster() const { return !deployment_.seeds.empty(); }
  std::string AddressOf(const source::Entry &entry) const;
  Node &NodeAt(const std::string &address);
  void FindNodes();
  void FindNodesAgain();
  bool WriteAt(const std::string &address, const std::vector<const source::Entry *> &entries,
               std::vector<sink::WrittenKey> &written);

  redis::Deployment deployment_;
  sink::WriterOptions options_;
  source::RateCeiling ceiling_;
  std::map<std::string, redis::Endpoint> masters_;  // of a cluster, by address
  std::vector<std::string> owners_;                 // of its slots
  std::map<std::string, std::unique_ptr<Node>> nodes_;
  Outage outage_;
  uint64_t by_commands_ = 0;
};

}  // namespace prm
