#include "lib/cpp/hostile_redis.h"

#include <hiredis/hiredis.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <utility>

namespace prm::test {

namespace {

bool SendAll(int fd, const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return false;
    sent += static_cast<size_t>(count);
  }
  return true;
}

std::unique_ptr<redisReader, void (*)(redisReader*)> NewReader() {
  return {redisReaderCreate(), redisReaderFree};
}

// Reads until a reply, or a command, is whole; `raw` is what it consists of. nullptr when the other side
// goes.
redisReply* Read(int fd, redisReader* reader, std::string* raw) {
  for (;;) {
    void* reply = nullptr;
    if (redisReaderGetReply(reader, &reply) != REDIS_OK || reply != nullptr) {
      return static_cast<redisReply*>(reply);
    }
    char buffer[65536];
    const ssize_t count = recv(fd, buffer, sizeof(buffer), 0);
    if (count <= 0) return nullptr;
    redisReaderFeed(reader, buffer, static_cast<size_t>(count));
    if (raw != nullptr) raw->append(buffer, static_cast<size_t>(count));
  }
}

void SendAtOnce(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  (void)connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  SendAtOnce(fd);
  return fd;
}

}  // namespace

HostileRedis::HostileRedis(std::function<std::optional<Answer>(const Arguments&)> answer, int server_port)
    : answer_(std::move(answer)), server_port_(server_port), acceptor_([this] { Accept(); }) {}

HostileRedis::~HostileRedis() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ends_ = true;
    for (const Client& client : clients_) shutdown(client.fd, SHUT_RDWR);
  }
  shutdown(listener_.fd(), SHUT_RDWR);
  acceptor_.join();
  for (Client& client : clients_) {
    client.thread.join();
    close(client.fd);
  }
}

void HostileRedis::Accept() {
  for (;;) {
    const int fd = accept(listener_.fd(), nullptr, nullptr);
    if (fd < 0) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (ends_) {
      close(fd);
      return;
    }
    clients_.remove_if([](Client& client) {
      if (!client.is_done) return false;
      client.thread.join();
      close(client.fd);
      return true;
    });
    SendAtOnce(fd);
    Client& client = clients_.emplace_back();
    client.fd = fd;
    client.thread = std::thread([this, &client] { Serve(client); });
  }
}

std::string HostileRedis::NameOf(const Arguments& arguments) {
  std::string name = arguments.at(0);
  const auto upper = [](std::string& text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  };
  upper(name);
  for (const char* container :
       {"CLUSTER", "CLIENT", "MEMORY", "OBJECT", "SENTINEL", "XINFO", "CONFIG", "ACL"}) {
    if (name == container && arguments.size() > 1) {
      std::string second = arguments[1];
      upper(second);
      return name + " " + second;
    }
  }
  return name;
}

std::set<std::string> HostileRedis::commands() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return commands_;
}

void HostileRedis::Serve(Client& self) {
  const int client = self.fd;
  const int server = server_port_ != 0 ? Connect(server_port_) : -1;
  const auto from_client = NewReader();
  const auto from_server = NewReader();
  while (redisReply* command = Read(client, from_client.get(), nullptr)) {
    Arguments arguments;
    std::string raw = "*" + std::to_string(command->elements) + "\r\n";
    for (size_t i = 0; i < command->elements; ++i) {
      arguments.emplace_back(command->element[i]->str, command->element[i]->len);
      raw += "$" + std::to_string(arguments.back().size()) + "\r\n" + arguments.back() + "\r\n";
    }
    freeReplyObject(command);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      commands_.insert(NameOf(arguments));
    }
    std::optional<Answer> answer = answer_(arguments);
    if (!answer && server >= 0) {
      answer.emplace();
      if (!SendAll(server, raw)) break;
      redisReply* reply = Read(server, from_server.get(), &answer->bytes);
      if (reply == nullptr) break;
      freeReplyObject(reply);
    }
    if (!answer) answer = Answer{"-ERR unknown command\r\n"};
    if (!SendAll(client, answer->bytes) || answer->closes) break;
  }
  shutdown(client, SHUT_RDWR);
  if (server >= 0) close(server);
  const std::lock_guard<std::mutex> lock(mutex_);
  self.is_done = true;
}

const std::vector<HostileRedis::Answer>& WrongAnswers() {
  static const std::vector<HostileRedis::Answer> answers = {
      {"+OK\r\n"},
      {"+\r\n"},
      {"+\xff\xfe\x01\r\n"},
      {":0\r\n"},
      {":-7\r\n"},
      {":9223372036854775807\r\n"},
      {":-9223372036854775808\r\n"},
      {"$-1\r\n"},
      {"*-1\r\n"},
      {"$0\r\n\r\n"},
      {"$2\r\n17\r\n"},
      {"$20\r\n99999999999999999999\r\n"},
      {"$4\r\n\xff\r\n\x01\r\n"},
      {"*0\r\n"},
      {"*1\r\n$1\r\n0\r\n"},
      {"*2\r\n:1\r\n:2\r\n"},
      {"*2\r\n$19\r\n9223372036854775807\r\n$19\r\n9223372036854775807\r\n"},
      {"*2\r\n$1\r\n0\r\n*2\r\n:1\r\n$-1\r\n"},
      {"*2\r\n$1\r\n0\r\n*1\r\n*1\r\n*0\r\n"},
      {"*2\r\n*2\r\n:0\r\n:16383\r\n*0\r\n"},
      {"*4\r\n$6\r\nmaster\r\n:1\r\n+x\r\n-ERR inside\r\n"},
      {"*2\r\n-ERR inside\r\n$-1\r\n"},
      {"-ERR no\r\n"},
      {"-\r\n"},
      {"-NOPERM this user has no permissions to run the command\r\n"},
      {"-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"},
      {"-MOVED 99999 nowhere\r\n"},
      {"-MOVED 1 127.0.0.1:1\r\n"},
      {"-LOADING Redis is loading the dataset in memory\r\n"},
      {"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"},
      // RESP3
      {"%1\r\n+a\r\n:1\r\n"},
      {"~1\r\n:1\r\n"},
      {"_\r\n"},
      {"#t\r\n"},
      {",1.5\r\n"},
      {"(3492890328409238509324850943850943825024385\r\n"},
      {"=5\r\ntxt:a\r\n"},
      {"!5\r\nERR a\r\n"},
      {">2\r\n+invalidate\r\n*1\r\n+k\r\n"},
      {"|1\r\n+ttl\r\n:1\r\n:2\r\n"},
      // no RESP
      {"HTTP/1.1 400 Bad Request\r\n\r\n"},
      {"\r\n"},
      {"*2147483647\r\n*2147483647\r\n*2147483647\r\n*2147483647\r\n*2147483647\r\n*2147483647\r\n"},
      {"*9999999999999999999999\r\n"},
      {"*-2\r\n"},
      {"$-2\r\n"},
      {"$9223372036854775807\r\nx", true},
      {"*2\r\n$1\r\n0\r\n*1\r\n$200000000\r\nthe name", true},
      {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"},
      {":1\r\n:2\r\n:3\r\n"},
      // cut
      {"", true},
      {"$10\r\nabc", true},
      {"*2\r\n$1\r\n0\r\n", true},
      {"+OK", true},
  };
  return answers;
}

}  // namespace prm::test
