// A connected stream socket that never blocks.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "core/status.h"
#include "redis/deadline.h"
#include "redis/resolver.h"
#include "redis/waiter.h"

namespace prm::redis {

enum class IoState {
  kMoved,    // `bytes` bytes, at least one
  kBlocked,  // nothing can be moved now
  kClosed,   // the other side has closed the connection
  kFailed,   // `reason` says why
};

struct IoResult {
  IoState state;
  size_t bytes = 0;
  unsigned events = 0;      // WaitEvent bits that kBlocked waits for
  std::string reason = {};  // a sentence
};

class Socket {
 public:
  Socket() = default;
  ~Socket();
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  // Connects to a host name or numeric address: resolves it and tries each address until one accepts. refuse:
  // returns an error for an address that must not be connected to. Errors: kTimeout, kConnectionFailure, both
  // naming host and port; that of `refuse` if it allows no address.
  using Refuse = std::function<std::optional<Error>(const SocketAddress&)>;
  static Result<Socket> ConnectTcp(const std::string& host, int port, const Deadline& deadline,
                                   Waiter& waiter, const Refuse& refuse = {});

  // Connects to a unix socket. Errors: kInvalidArgument (path too long), kTimeout, kConnectionFailure.
  static Result<Socket> ConnectUnix(const std::string& path, const Deadline& deadline, Waiter& waiter);

  IoResult Read(char* buffer, size_t size);
  IoResult Write(const char* bytes, size_t size);

  int fd() const { return fd_; }

  // The address of the other side of a TCP connection.
  SocketAddress PeerAddress() const;

 private:
  explicit Socket(int fd) : fd_(fd) {}

  int fd_ = -1;
};

// "10.0.0.5:6379", "[::1]:6379".
std::string HostAndPort(const std::string& host, int port);

}  // namespace prm::redis
