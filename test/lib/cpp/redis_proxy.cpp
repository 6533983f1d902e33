#include "lib/cpp/redis_proxy.h"

#include <hiredis/hiredis.h>
#include <netinet/tcp.h>

#include <cstdlib>
#include <memory>
#include <utility>

namespace prm::test {

namespace {

// Takes whole commands (arrays of bulk strings) from the front of the input.
void TakeCommands(std::string& input, std::vector<RedisProxy::Arguments>& queue,
                  std::vector<std::string>& raw) {
  for (size_t start = 0;;) {
    size_t at = start;
    const auto length = [&](size_t& value) {
      const size_t end = input.find("\r\n", at);
      if (end == std::string::npos) return false;
      value = std::strtoul(input.c_str() + at + 1, nullptr, 10);
      at = end + 2;
      return true;
    };
    RedisProxy::Arguments arguments;
    size_t count = 0;
    bool whole = length(count);
    while (whole && arguments.size() < count) {
      size_t size = 0;
      whole = length(size) && input.size() >= at + size + 2;
      if (whole) arguments.push_back(input.substr(at, size));
      at += size + 2;
    }
    if (!whole) {
      input.erase(0, start);
      return;
    }
    raw.push_back(input.substr(start, at - start));
    queue.push_back(std::move(arguments));
    start = at;
  }
}

bool SendAll(int fd, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    size -= static_cast<size_t>(sent);
  }
  return true;
}

}  // namespace

RedisProxy::RedisProxy(int server_port, std::function<void(const std::vector<Arguments>&)> before,
                       std::chrono::milliseconds delay, std::function<std::string(const Arguments&)> instead)
    : before_(std::move(before)),
      delay_(delay),
      instead_(std::move(instead)),
      thread_([this, server_port] { Serve(server_port); }) {}

RedisProxy::~RedisProxy() {
  shutdown(listener_.fd(), SHUT_RDWR);
  thread_.join();
  close(client_);
  close(server_);
}

void RedisProxy::Serve(int server_port) {
  client_ = accept(listener_.fd(), nullptr, nullptr);
  shutdown(listener_.fd(), SHUT_RDWR);  // others are refused
  server_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(server_port));
  if (client_ < 0 || connect(server_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return;

  const int on = 1;
  for (const int fd : {client_, server_}) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

  std::string input;
  std::vector<Arguments> queue;
  std::vector<std::string> raw;
  for (;;) {
    // All that the client has sent; waits only when there is nothing to do.
    char buffer[65536];
    ssize_t count = 0;
    while ((count = recv(client_, buffer, sizeof(buffer), queue.empty() ? 0 : MSG_DONTWAIT)) > 0) {
      input.append(buffer, static_cast<size_t>(count));
      TakeCommands(input, queue, raw);
    }
    if (count == 0) return;
    before_(queue);
    const std::string answer = instead_ ? instead_(queue.front()) : std::string();
    if (answer.empty() ? !Forward(raw.front()) : !SendAll(client_, answer.data(), answer.size())) return;
    queue.erase(queue.begin());
    raw.erase(raw.begin());
  }
}

// Sends one command to the server and its reply to the client.
bool RedisProxy::Forward(const std::string& command) {
  if (!SendAll(server_, command.data(), command.size())) return false;
  const std::unique_ptr<redisReader, void (*)(redisReader*)> reader(redisReaderCreate(), redisReaderFree);
  for (;;) {
    char buffer[65536];
    const ssize_t count = recv(server_, buffer, sizeof(buffer), 0);
    std::this_thread::sleep_for(delay_);
    if (count <= 0 || !SendAll(client_, buffer, static_cast<size_t>(count))) return false;
    void* reply = nullptr;
    if (redisReaderFeed(reader.get(), buffer, static_cast<size_t>(count)) != REDIS_OK ||
        redisReaderGetReply(reader.get(), &reply) != REDIS_OK) {
      return false;
    }
    if (reply != nullptr) {
      freeReplyObject(reply);
      return true;
    }
  }
}

}  // namespace prm::test
