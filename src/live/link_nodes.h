// The nodes of a cluster that a link may lead to: its master, and the replicas one of which may be the next.
#pragma once

#include "connect/server.h"

namespace prm {

class LinkNodes {
 public:
  explicit LinkNodes(std::string server) : server_(std::move(server)) {}

  // Replaces the ids of the nodes by those that the cluster names now, as the master of the link knows them;
  // at most every five seconds, and not while the cluster cannot be asked. Nothing for an empty list: the
  // server is no cluster. Commits. Errors: those of ServerConnection that do not pass by themselves.
  void Refresh(std::vector<std::string> &nodes);

 private:
  std::string server_;
  std::unique_ptr<ServerConnection> connection_;
  int64 asked_ms_ = 0;
};

}  // namespace prm
