// A replica of a server that keeps what it is sent.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/cpp/memory_spool.h"
#include "lib/cpp/poll_waiter.h"
#include "redis/replication_link.h"
#include "source/snapshot.h"

namespace prm::test {

// A command as it stands in a stream.
inline std::string Resp(const std::vector<std::string>& arguments) {
  std::string bytes = "*" + std::to_string(arguments.size()) + "\r\n";
  for (const std::string& argument : arguments)
    bytes += "$" + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
  return bytes;
}

// A connection, the link on it and what came over it.
class Follower {
 public:
  explicit Follower(int port, const std::optional<redis::ReplicationPoint>& from = std::nullopt,
                    long timeout_ms = 5000) {
    redis::ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = port;
    options.command_timeout_ms = timeout_ms;
    auto connected = redis::Connection::Open(options, waiter_);
    if (!connected.ok()) {
      status = connected.error();
      return;
    }
    connection_ = std::move(connected.value());
    auto opened = redis::ReplicationLink::Open(*connection_, from);
    if (!opened.ok()) {
      status = opened.error();
      return;
    }
    link = std::move(opened.value());
    start = link->point();
    if (link->has_snapshot()) status = source::ReceiveSnapshot(*link, snapshot, uint64_t{1} << 40);
    if (status.ok()) link->Acknowledge(start.offset);
  }

  // Reads what comes within wait_ms.
  void Read(long wait_ms, size_t piece = 1000) {
    std::string buffer(piece, '\0');
    const auto read = link->ReadStream(buffer.data(), piece, wait_ms);
    if (!read.ok()) {
      status = read.error();
      return;
    }
    stream.append(buffer, 0, read.value());
  }

  // Reads until the stream holds these bytes.
  bool ReadUntil(const std::string& bytes, size_t piece = 1000) {
    for (int i = 0; i < 1000 && status.ok() && stream.find(bytes) == std::string::npos; ++i) {
      Read(20, piece);
      link->Acknowledge(link->point().offset);
    }
    return stream.find(bytes) != std::string::npos;
  }

  Status status;
  std::unique_ptr<redis::ReplicationLink> link;
  redis::ReplicationPoint start;
  MemorySpool snapshot;
  std::string stream;

 private:
  PollWaiter waiter_;
  std::unique_ptr<redis::Connection> connection_;
};

}  // namespace prm::test
