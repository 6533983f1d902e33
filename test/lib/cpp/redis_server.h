// A redis-server for one test: its own port, its own temporary directory, its own process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace prm::test {

class RedisServer {
 public:
  // Starts $REDIS_SERVER, or redis-server as found through PATH, on a free port of 127.0.0.1 and on the unix
  // socket unix_socket(), in a new temporary directory, without snapshots or append-only file, and waits
  // until it answers. extra_args are appended to the command line: {"--requirepass", "x", "--maxmemory",
  // "10mb"}. Throws std::runtime_error with the end of the server's log when it does not start.
  explicit RedisServer(std::vector<std::string> extra_args = {});

  // Kills the process and removes the directory.
  ~RedisServer();

  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  // Starts a stopped server again: same port, same directory, so it loads what a SAVE left there.
  void Start();

  // Ends the process: by SIGTERM, as an orderly shutdown, or by SIGKILL. Nothing happens if it has ended.
  void Stop();
  void Kill();

  // Stop and Start: the run_id changes and, unless SAVE was called before, the data is gone.
  void Restart();

  // SIGSTOP and SIGCONT: the sockets stay open, nothing answers.
  void Pause();
  void Resume();

  int port() const { return port_; }
  pid_t pid() const { return pid_; }  // -1 when stopped
  const std::string& directory() const { return directory_; }
  std::string unix_socket() const { return directory_ + "/redis.sock"; }
  std::string log() const;  // what the server has logged so far

  // A TCP port of 127.0.0.1 that was free a moment ago.
  static int FreePort();

 private:
  void Launch();
  bool Answers() const;
  void End(int signal);
  void RemoveDirectory();

  std::vector<std::string> extra_args_;
  std::string directory_;
  int port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace prm::test
