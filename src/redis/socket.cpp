#include "redis/socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace prm::redis {

namespace {

// poll(2) does not report room in a full backlog of a unix socket: connect(2) has to be retried.
constexpr long kUnixRetryMs = 10;

Error ConnectError(const std::string& where, std::string reasons) {
  return {ErrorCode::kConnectionFailure, "could not connect to Redis at " + where, std::move(reasons), {}};
}

Error ConnectTimeout(const std::string& where, const Deadline& deadline, std::string reasons) {
  return {ErrorCode::kTimeout,
          "could not connect to Redis at " + where + " within " + std::to_string(deadline.limit_ms()) + " ms",
          std::move(reasons),
          {}};
}

void SetOption(int fd, int level, int option, int value) {
  setsockopt(fd, level, option, &value, sizeof(value));
}

// Sends small requests at once, and detects a dead host within two minutes even on an idle connection.
// Neither is essential, so failures are ignored.
void TuneTcp(int fd) {
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
#endif
}

// The result of connecting one socket: 0, an errno, or ETIMEDOUT when `limit` has passed.
int FinishConnect(int fd, const Deadline& limit, Waiter& waiter) {
  for (;;) {
    WaitSocket socket{fd, kWaitWrite, 0};
    const long remaining_ms = limit.RemainingMs();
    if (remaining_ms == 0) return ETIMEDOUT;
    if (waiter.Wait(&socket, 1, remaining_ms) == 0) continue;
    int error = 0;
    socklen_t length = sizeof(error);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
  }
}

}  // namespace

std::string HostAndPort(const std::string& host, int port) {
  const bool bracketed = host.find(':') != std::string::npos;
  return (bracketed ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

Result<Socket> Socket::ConnectTcp(const std::string& host, int port, const Deadline& deadline, Waiter& waiter,
                                  const Refuse& refuse) {
  const std::string where = HostAndPort(host, port);
  Result<std::vector<SocketAddress>> addresses = Resolve(host, port, deadline, waiter);
  if (!addresses.ok()) return addresses.error();
  if (refuse) {
    std::optional<Error> refusal;
    std::vector<SocketAddress> allowed;
    for (const SocketAddress& address : addresses.value()) {
      std::optional<Error> refused = refuse(address);
      if (!refused) allowed.push_back(address);
      if (refused) refusal = std::move(refused);
    }
    if (allowed.empty()) return *refusal;
    addresses.value() = std::move(allowed);
  }

  std::string reasons;
  for (size_t i = 0; i < addresses.value().size(); ++i) {
    const SocketAddress& address = addresses.value()[i];
    // An address that never answers gets its share of the time, not all of it.
    const Deadline share(deadline.RemainingMs() / static_cast<long>(addresses.value().size() - i));
    Socket candidate(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    int error = 0;
    if (candidate.fd_ < 0) {
      error = errno;
    } else {
      TuneTcp(candidate.fd_);
      if (connect(candidate.fd_, reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0) {
        error = errno == EINPROGRESS || errno == EINTR ? FinishConnect(candidate.fd_, share, waiter) : errno;
      }
    }
    if (error == 0) return candidate;
    reasons += (reasons.empty() ? "" : "; ") + AddressText(address) + ": " + std::strerror(error);
  }
  reasons += '.';
  if (deadline.RemainingMs() == 0) return ConnectTimeout(where, deadline, std::move(reasons));
  return ConnectError(where, std::move(reasons));
}

Result<Socket> Socket::ConnectUnix(const std::string& path, const Deadline& deadline, Waiter& waiter) {
  sockaddr_un address{};
  if (path.size() >= sizeof(address.sun_path)) {
    return Error{ErrorCode::kInvalidArgument,
                 "path of unix socket \"" + path + "\" is too long",
                 "The limit is " + std::to_string(sizeof(address.sun_path) - 1) + " bytes.",
                 {}};
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());

  Socket candidate(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (candidate.fd_ < 0) return ConnectError(path, std::string(std::strerror(errno)) + ".");
  while (connect(candidate.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno != EAGAIN && errno != EINTR) return ConnectError(path, std::string(std::strerror(errno)) + ".");
    const long remaining_ms = deadline.RemainingMs();
    if (remaining_ms == 0) return ConnectTimeout(path, deadline, "The server does not accept connections.");
    waiter.Wait(nullptr, 0, std::min(kUnixRetryMs, remaining_ms));
  }
  return candidate;
}

SocketAddress Socket::PeerAddress() const {
  SocketAddress address{};
  address.length = sizeof(address.storage);
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) return {};
  return address;
}

IoResult Socket::Read(char* buffer, size_t size) {
  for (;;) {
    const ssize_t count = recv(fd_, buffer, size, 0);
    if (count > 0) return {IoState::kMoved, static_cast<size_t>(count)};
    if (count == 0) return {IoState::kClosed};
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {IoState::kBlocked, 0, kWaitRead};
    if (errno != EINTR) return {IoState::kFailed, 0, 0, std::string(std::strerror(errno)) + "."};
  }
}

IoResult Socket::Write(const char* bytes, size_t size) {
  for (;;) {
    const ssize_t count = send(fd_, bytes, size, MSG_NOSIGNAL);
    if (count >= 0) return {IoState::kMoved, static_cast<size_t>(count)};
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {IoState::kBlocked, 0, kWaitWrite};
    if (errno != EINTR) return {IoState::kFailed, 0, 0, std::string(std::strerror(errno)) + "."};
  }
}

}  // namespace prm::redis
