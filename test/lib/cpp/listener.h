// A listening socket that accepts nobody, for tests of what never answers.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace prm::test {

class Listener {
 public:
  // On 127.0.0.1 at a free port.
  explicit Listener(int backlog = 16) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address_);
    v4->sin_family = AF_INET;
    v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Listen(sizeof(*v4), backlog);
    port_ = ntohs(v4->sin_port);
  }

  // On a unix socket.
  Listener(const std::string& path, int backlog) {
    auto* un = reinterpret_cast<sockaddr_un*>(&address_);
    un->sun_family = AF_UNIX;
    std::strncpy(un->sun_path, path.c_str(), sizeof(un->sun_path) - 1);
    Listen(sizeof(*un), backlog);
  }

  ~Listener() {
    for (const int fd : fds_) close(fd);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Connects until the backlog takes no more.
  void FillBacklog() {
    for (int i = 0; i < 8; ++i) {
      const int fd = socket(address_.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      fds_.push_back(fd);
      (void)connect(fd, reinterpret_cast<sockaddr*>(&address_), length_);
    }
    usleep(20000);
  }

  int fd() const { return fds_.front(); }
  int port() const { return port_; }

 private:
  void Listen(socklen_t length, int backlog) {
    length_ = length;
    fds_.push_back(socket(address_.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (bind(fd(), reinterpret_cast<sockaddr*>(&address_), length) != 0 || listen(fd(), backlog) != 0 ||
        getsockname(fd(), reinterpret_cast<sockaddr*>(&address_), &length_) != 0) {
      throw std::runtime_error(std::string("listen: ") + std::strerror(errno));
    }
  }

  sockaddr_storage address_{};
  socklen_t length_ = 0;
  std::vector<int> fds_;
  int port_ = 0;
};

}  // namespace prm::test
