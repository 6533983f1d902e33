// Stands between a client and a real Redis and hands commands over one at a time, so that a test can do
// something between two commands of a pipeline, and see what the client has asked for ahead.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "lib/cpp/listener.h"

namespace prm::test {

class RedisProxy {
 public:
  using Arguments = std::vector<std::string>;

  // `before` is called on the proxy's thread for each command before it is handed over: the commands before
  // it have been carried out, and `queue` holds it and all that the client has sent after it. One client is
  // served. `instead` returns the reply to a command that the server is not to see, or nothing.
  RedisProxy(int server_port, std::function<void(const std::vector<Arguments>& queue)> before,
             std::chrono::milliseconds delay = {}, std::function<std::string(const Arguments&)> instead = {});

  // The client must have closed its connection.
  ~RedisProxy();

  int port() const { return listener_.port(); }

 private:
  void Serve(int server_port);
  bool Forward(const std::string& command);

  Listener listener_;
  std::function<void(const std::vector<Arguments>&)> before_;
  std::chrono::milliseconds delay_;
  std::function<std::string(const Arguments&)> instead_;
  int client_ = -1;
  int server_ = -1;
  std::thread thread_;
};

}  // namespace prm::test
