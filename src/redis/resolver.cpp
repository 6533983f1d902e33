#include "redis/resolver.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace prm::redis {

namespace {

// c-ares counts these calls, which are cheap on Unix.
class AresLibrary {
 public:
  AresLibrary() : status_(ares_library_init(ARES_LIB_INIT_ALL)) {}
  ~AresLibrary() {
    if (status_ == ARES_SUCCESS) ares_library_cleanup();
  }
  AresLibrary(const AresLibrary&) = delete;
  AresLibrary& operator=(const AresLibrary&) = delete;
  int status() const { return status_; }

 private:
  int status_;
};

struct ChannelDeleter {
  void operator()(ares_channel channel) const { ares_destroy(channel); }
};
using Channel = std::unique_ptr<std::remove_pointer_t<ares_channel>, ChannelDeleter>;

struct AddrinfoDeleter {
  void operator()(ares_addrinfo* info) const { ares_freeaddrinfo(info); }
};

// The object that c-ares reports to. It must outlive the channel, whose destruction reports as well.
struct Lookup {
  bool done = false;
  int status = ARES_SUCCESS;
  std::unique_ptr<ares_addrinfo, AddrinfoDeleter> info;

  static void Finished(void* self, int status, int /*timeouts*/, ares_addrinfo* info) {
    auto* lookup = static_cast<Lookup*>(self);
    lookup->done = true;
    lookup->status = status;
    lookup->info.reset(info);
  }
};

// Leaves time to ask the next name server if one does not answer.
Result<Channel> OpenChannel(const Deadline& deadline, const std::string& name_servers) {
  ares_options options{};
  options.timeout = static_cast<int>(std::clamp(deadline.limit_ms() / 4, 100L, 2000L));
  options.tries = 3;
  ares_channel raw = nullptr;
  int status = ares_init_options(&raw, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
  Channel channel(status == ARES_SUCCESS ? raw : nullptr);
  if (status == ARES_SUCCESS && !name_servers.empty()) {
    status = ares_set_servers_ports_csv(channel.get(), name_servers.c_str());
  }
  if (status != ARES_SUCCESS) {
    return Error{
        ErrorCode::kConnectionFailure, "could not set up name resolution", ares_strerror(status), {}};
  }
  return channel;
}

// Advances the lookup: waits for its sockets or its next retry, whichever comes first.
void Step(ares_channel channel, long limit_ms, Waiter& waiter) {
  ares_socket_t fds[ARES_GETSOCK_MAXNUM];
  const auto mask = static_cast<unsigned>(ares_getsock(channel, fds, ARES_GETSOCK_MAXNUM));
  WaitSocket sockets[ARES_GETSOCK_MAXNUM];
  size_t count = 0;
  for (unsigned i = 0; i < ARES_GETSOCK_MAXNUM; ++i) {
    unsigned events = 0;
    if (ARES_GETSOCK_READABLE(mask, i)) events |= kWaitRead;
    if (ARES_GETSOCK_WRITABLE(mask, i)) events |= kWaitWrite;
    if (events != 0) sockets[count++] = {fds[i], events, 0};
  }
  timeval limit{limit_ms / 1000, (limit_ms % 1000) * 1000};
  timeval next{};
  const timeval* wait = ares_timeout(channel, &limit, &next);
  // c-ares truncates to milliseconds; without the extra one this loop would poll for the retry.
  waiter.Wait(sockets, count, wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1);
  ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // retries that are due
  for (size_t i = 0; i < count; ++i) {
    const auto fd_if = [&](unsigned event) {
      return (sockets[i].ready & event) != 0 ? sockets[i].fd : ARES_SOCKET_BAD;
    };
    if (sockets[i].ready != 0) ares_process_fd(channel, fd_if(kWaitRead), fd_if(kWaitWrite));
  }
}

bool ParseNumeric(const std::string& host, int port, SocketAddress& address) {
  address = {};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    address.length = sizeof(*v4);
    return true;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    address.length = sizeof(*v6);
    return true;
  }
  return false;
}

}  // namespace

std::string AddressText(const SocketAddress& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.storage.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr, text, sizeof(text));
  } else if (address.storage.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr, text,
              sizeof(text));
  }
  return text;
}

Result<std::vector<SocketAddress>> Resolve(const std::string& host, int port, const Deadline& deadline,
                                           Waiter& waiter, const std::string& name_servers) {
  if (SocketAddress numeric; ParseNumeric(host, port, numeric)) return std::vector<SocketAddress>{numeric};

  const auto failure = [&](int status) {
    return Error{ErrorCode::kConnectionFailure,
                 "could not resolve host name \"" + host + "\"",
                 ares_strerror(status),
                 {}};
  };
  const AresLibrary library;
  if (library.status() != ARES_SUCCESS) return failure(library.status());
  Lookup lookup;
  Result<Channel> channel = OpenChannel(deadline, name_servers);
  if (!channel.ok()) return channel.error();

  ares_addrinfo_hints hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = ARES_AI_NUMERICSERV;
  const std::string service = std::to_string(port);
  ares_getaddrinfo(channel.value().get(), host.c_str(), service.c_str(), &hints, Lookup::Finished, &lookup);
  while (!lookup.done) {
    const long remaining_ms = deadline.RemainingMs();
    if (remaining_ms == 0) {
      return Error{ErrorCode::kTimeout,
                   "could not resolve host name \"" + host + "\" within " +
                       std::to_string(deadline.limit_ms()) + " ms",
                   "No name server answered.",
                   {}};
    }
    Step(channel.value().get(), remaining_ms, waiter);
  }
  if (lookup.status != ARES_SUCCESS) return failure(lookup.status);

  std::vector<SocketAddress> addresses;
  for (const ares_addrinfo_node* node = lookup.info->nodes; node != nullptr; node = node->ai_next) {
    SocketAddress& address = addresses.emplace_back();
    address.length = std::min<socklen_t>(node->ai_addrlen, sizeof(address.storage));
    std::memcpy(&address.storage, node->ai_addr, address.length);
  }
  if (addresses.empty()) return failure(ARES_ENODATA);
  return addresses;
}

}  // namespace prm::redis
