// A server that answers as a test likes, or as a real Redis behind it does.
#pragma once

#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "lib/cpp/listener.h"

namespace prm::test {

class HostileRedis {
 public:
  using Arguments = std::vector<std::string>;

  struct Answer {
    std::string bytes;
    bool closes = false;  // the connection, when the bytes are sent
  };

  // `answer` is called for each command, on a thread of its connection; for nothing the command goes to the
  // Redis at server_port, or is answered by an error where that is 0.
  explicit HostileRedis(std::function<std::optional<Answer>(const Arguments&)> answer, int server_port = 0);

  // Closes all connections.
  ~HostileRedis();

  int port() const { return listener_.port(); }

  // The commands so far, each once: the name in capitals, with the next word for CLUSTER and the like.
  std::set<std::string> commands();

  static std::string NameOf(const Arguments& arguments);

 private:
  struct Client {
    int fd;
    bool is_done = false;
    std::thread thread;
  };

  void Accept();
  void Serve(Client& client);

  std::function<std::optional<Answer>(const Arguments&)> answer_;
  int server_port_;
  Listener listener_;
  std::mutex mutex_;
  std::set<std::string> commands_;
  std::list<Client> clients_;
  bool ends_ = false;
  std::thread acceptor_;
};

// Each kind of RESP2 and RESP3 reply, none of which suits every command, and what is none.
const std::vector<HostileRedis::Answer>& WrongAnswers();

}  // namespace prm::test
