// Commands that are sent without waiting for the replies of those before, within a bound.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "redis/connection.h"

namespace prm::sink {

class Pipeline {
 public:
  // Told each reply, in the order of the commands; an error reply is a reply, too. tag: as Send was given it.
  using OnReply = std::function<void(size_t tag, const redis::Reply& reply)>;

  // Nothing may be pending on the connection, which must outlive the object. bytes: of commands whose replies
  // have not come; one larger command is sent by itself.
  Pipeline(redis::Connection& connection, size_t bytes, OnReply on_reply)
      : connection_(connection), most_bytes_(bytes), on_reply_(std::move(on_reply)) {}

  // Waits for earlier replies where the bound demands it. Errors: those of Connection::Receive; the
  // connection is then broken.
  Status Send(const std::vector<Bytes>& arguments, size_t tag);

  // Waits for all replies. Errors: likewise.
  Status Drain() { return ReceiveUntil(0, 0); }

 private:
  static constexpr size_t kMostCommands = 1000;

  struct Sent {
    size_t tag;
    size_t bytes;
  };
  Status ReceiveUntil(size_t commands, size_t bytes);

  redis::Connection& connection_;
  size_t most_bytes_;
  OnReply on_reply_;
  std::deque<Sent> sent_;
  size_t bytes_ = 0;  // of sent_
};

}  // namespace prm::sink
