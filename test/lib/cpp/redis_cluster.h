// A Redis Cluster of masters for one test.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "redis/cluster_slots.h"

namespace prm::test {

class RedisCluster {
 public:
  // Starts that many nodes, gives each an equal share of the slots, and waits until all of them agree.
  explicit RedisCluster(size_t nodes);

  size_t size() const { return servers_.size(); }
  RedisServer& server(size_t node) { return *servers_[node]; }
  RedisClient& client(size_t node) { return *clients_[node]; }
  std::string id(size_t node) { return client(node).String({"CLUSTER", "MYID"}); }
  // The node that serves a slot, as the first one sees it.
  size_t Owner(size_t slot);

  void Set(const std::string& key, const std::string& value);

  // Hands a slot over: announced, then all its keys, then agreed.
  void BeginMove(size_t slot, size_t from, size_t to);
  void MoveKeys(size_t slot, size_t from, size_t to);
  void FinishMove(size_t slot, size_t from, size_t to);

 private:
  void WaitUntilAgreed();

  std::vector<std::unique_ptr<RedisServer>> servers_;
  std::vector<std::unique_ptr<RedisClient>> clients_;
  std::vector<size_t> owners_;
};

}  // namespace prm::test
