#include "lib/cpp/redis_cluster.h"

#include <chrono>
#include <stdexcept>
#include <thread>

namespace prm::test {

namespace {

constexpr auto kAgreementLimit = std::chrono::seconds(60);

}  // namespace

RedisCluster::RedisCluster(size_t nodes) : owners_(redis::kClusterSlots) {
  for (size_t node = 0; node < nodes; ++node) {
    // The port of the cluster's bus is 10000 higher by default, which may not exist.
    servers_.push_back(std::make_unique<RedisServer>(std::vector<std::string>{
        "--cluster-enabled", "yes", "--cluster-port", std::to_string(RedisServer::FreePort())}));
    clients_.push_back(std::make_unique<RedisClient>(servers_.back()->port()));
  }
  const size_t share = (redis::kClusterSlots + nodes - 1) / nodes;
  for (size_t node = 0; node < nodes; ++node) {
    const size_t last = std::min((node + 1) * share, redis::kClusterSlots) - 1;
    client(node).Command({"CLUSTER", "ADDSLOTSRANGE", std::to_string(node * share), std::to_string(last)});
    for (size_t slot = node * share; slot <= last; ++slot) owners_[slot] = node;
    // Epochs that differ from the start: nobody has to give way later.
    client(node).Command({"CLUSTER", "SET-CONFIG-EPOCH", std::to_string(node + 1)});
  }
  for (size_t node = 1; node < nodes; ++node) {
    // <ip> <port> <port of the bus>
    const std::string line = client(node).String({"CLUSTER", "NODES"});
    const std::string bus =
        line.substr(line.find('@') + 1, line.find(' ', line.find('@')) - line.find('@') - 1);
    client(0).Command(
        {"CLUSTER", "MEET", "127.0.0.1", std::to_string(server(node).port()), bus.substr(0, bus.find(','))});
  }
  WaitUntilAgreed();
}

size_t RedisCluster::Owner(size_t slot) { return owners_[slot]; }

void RedisCluster::Set(const std::string& key, const std::string& value) {
  client(Owner(redis::KeySlot(key))).Command({"SET", key, value});
}

void RedisCluster::BeginMove(size_t slot, size_t from, size_t to) {
  client(to).Command({"CLUSTER", "SETSLOT", std::to_string(slot), "IMPORTING", id(from)});
  client(from).Command({"CLUSTER", "SETSLOT", std::to_string(slot), "MIGRATING", id(to)});
}

void RedisCluster::MoveKeys(size_t slot, size_t from, size_t to) {
  std::vector<std::string> command = {"MIGRATE", "127.0.0.1", std::to_string(server(to).port()), "", "0",
                                      "5000",    "KEYS"};
  const auto keys = client(from).Strings({"CLUSTER", "GETKEYSINSLOT", std::to_string(slot), "100000"});
  command.insert(command.end(), keys.begin(), keys.end());
  if (!keys.empty()) client(from).Command(command);
}

void RedisCluster::FinishMove(size_t slot, size_t from, size_t to) {
  for (const size_t node : {to, from}) {
    client(node).Command({"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", id(to)});
  }
  owners_[slot] = to;
}

void RedisCluster::WaitUntilAgreed() {
  const auto end = std::chrono::steady_clock::now() + kAgreementLimit;
  for (size_t node = 0; node < size();) {
    const std::string info = client(node).String({"CLUSTER", "INFO"});
    const bool agreed = info.find("cluster_state:ok") != std::string::npos &&
                        info.find("cluster_known_nodes:" + std::to_string(size())) != std::string::npos &&
                        client(node).String({"CLUSTER", "NODES"}).find("handshake") == std::string::npos;
    if (agreed) ++node;
    if (std::chrono::steady_clock::now() > end)
      throw std::runtime_error("the cluster does not agree: " + info);
    if (!agreed) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace prm::test
