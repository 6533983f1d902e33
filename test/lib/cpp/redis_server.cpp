#include "lib/cpp/redis_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

namespace prm::test {

namespace {

constexpr auto kStartLimit = std::chrono::seconds(20);
constexpr int kStartAttempts = 5;

std::string MakeTemporaryDirectory() {
  // Short: the path of a unix socket is limited to about 100 bytes.
  std::string path = "/tmp/prm-redis-XXXXXX";
  if (mkdtemp(path.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  return path;
}

}  // namespace

RedisServer::RedisServer(std::vector<std::string> extra_args)
    : extra_args_(std::move(extra_args)), directory_(MakeTemporaryDirectory()) {
  // Someone else may take the port between looking for it and using it: then another is tried.
  for (int attempt = 1;; ++attempt) {
    port_ = FreePort();
    try {
      Start();
      return;
    } catch (const std::runtime_error&) {
      if (attempt < kStartAttempts && log().find("Address already in use") != std::string::npos) continue;
      End(SIGKILL);
      RemoveDirectory();
      throw;
    }
  }
}

RedisServer::~RedisServer() {
  End(SIGKILL);
  RemoveDirectory();
}

void RedisServer::Start() {
  if (pid_ > 0) return;
  std::filesystem::remove(directory_ + "/redis.log");
  Launch();
  const auto deadline = std::chrono::steady_clock::now() + kStartLimit;
  while (!Answers()) {
    const bool ended = waitpid(pid_, nullptr, WNOHANG) == pid_;
    if (ended) pid_ = -1;
    if (ended || std::chrono::steady_clock::now() > deadline) {
      throw std::runtime_error("redis-server did not start: " + log());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void RedisServer::Stop() { End(SIGTERM); }

void RedisServer::Kill() { End(SIGKILL); }

void RedisServer::Restart() {
  Stop();
  Start();
}

void RedisServer::Pause() {
  if (pid_ > 0) kill(pid_, SIGSTOP);
}

void RedisServer::Resume() {
  if (pid_ > 0) kill(pid_, SIGCONT);
}

std::string RedisServer::log() const {
  std::ifstream file(directory_ + "/redis.log");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

int RedisServer::FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const bool found = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  close(fd);
  if (!found) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

void RedisServer::Launch() {
  const char* program = getenv("REDIS_SERVER");
  std::vector<std::string> arguments = {program != nullptr ? program : "redis-server",
                                        "--port",
                                        std::to_string(port_),
                                        "--bind",
                                        "127.0.0.1",
                                        "--unixsocket",
                                        unix_socket(),
                                        "--dir",
                                        directory_,
                                        "--logfile",
                                        directory_ + "/redis.log",
                                        "--save",
                                        "",
                                        "--appendonly",
                                        "no",
                                        "--daemonize",
                                        "no"};
  arguments.insert(arguments.end(), extra_args_.begin(), extra_args_.end());
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child > 0) {
    pid_ = child;
    return;
  }
  // In the child. It must not outlive a test that crashes.
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  if (getppid() != parent) _exit(127);
  const int null_fd = open("/dev/null", O_RDWR);
  dup2(null_fd, STDIN_FILENO);
  dup2(null_fd, STDOUT_FILENO);
  execvp(argv[0], argv.data());
  _exit(127);
}

// Through the unix socket, which nobody else's server can hold. Any reply but -LOADING counts: with a
// password, PING is refused by a server that is ready. A socket file that a killed server left refuses.
bool RedisServer::Answers() const {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, unix_socket().c_str(), sizeof(address.sun_path) - 1);
  const timeval limit{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  char reply[64] = {};
  const char ping[] = "PING\r\n";
  const bool answered = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                        write(fd, ping, sizeof(ping) - 1) == static_cast<ssize_t>(sizeof(ping) - 1) &&
                        read(fd, reply, sizeof(reply) - 1) > 0;
  close(fd);
  return answered && std::strncmp(reply, "-LOADING", 8) != 0;
}

void RedisServer::End(int signal) {
  if (pid_ <= 0) return;
  Resume();  // a paused process would not see SIGTERM
  kill(pid_, signal);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void RedisServer::RemoveDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

}  // namespace prm::test
