// Waits with poll(2).
#pragma once

#include <poll.h>

#include <vector>

#include "redis/waiter.h"

namespace prm::test {

class PollWaiter : public redis::Waiter {
 public:
  int Wait(redis::WaitSocket* sockets, size_t count, long timeout_ms) override {
    std::vector<pollfd> fds(count);
    for (size_t i = 0; i < count; ++i) {
      fds[i].fd = sockets[i].fd;
      if ((sockets[i].events & redis::kWaitRead) != 0) fds[i].events |= POLLIN;
      if ((sockets[i].events & redis::kWaitWrite) != 0) fds[i].events |= POLLOUT;
    }
    const int ready = poll(fds.data(), static_cast<nfds_t>(count), static_cast<int>(timeout_ms));
    for (size_t i = 0; i < count; ++i) {
      const bool failed = (fds[i].revents & (POLLERR | POLLHUP)) != 0;
      sockets[i].ready = 0;
      if (failed || (fds[i].revents & POLLIN) != 0) sockets[i].ready |= sockets[i].events & redis::kWaitRead;
      if (failed || (fds[i].revents & POLLOUT) != 0)
        sockets[i].ready |= sockets[i].events & redis::kWaitWrite;
    }
    return ready < 0 ? 0 : ready;
  }
};

}  // namespace prm::test
