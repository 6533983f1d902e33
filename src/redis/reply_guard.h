// A filter between the socket and hiredis, which allocates memory for whatever the header of a reply
// announces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "core/bytes.h"
#include "core/status.h"
#include "core/text_gate.h"

namespace prm::redis {

// The memory that hiredis takes for one element of a reply, without the bytes of a string.
constexpr uint64_t kElementBytes = 96;

// How much memory the reply to a command may take: kElementBytes for each element that it announces, and the
// bytes of its strings.
struct ReplyLimit {
  uint64_t bytes;
  // A string beyond the limit is skipped and becomes nil. Otherwise it breaks the connection, as too many
  // elements always do.
  bool drops_strings = false;
};

// For a status, a number or a few words.
constexpr ReplyLimit kSmallReply{uint64_t{1} << 20};
// For a description of a server, a cluster or a set of Sentinels: 16384 slots, each a range with three nodes,
// take 35 MB.
constexpr ReplyLimit kLargeReply{uint64_t{64} << 20};

// Parses the headers of RESP2, redis.io/docs/reference/protocol-spec, and passes on bytes that are within the
// limits.
class ReplyGuard {
 public:
  // Passes bytes to ReplyReader.
  using Sink = std::function<void(const char* bytes, size_t size)>;

  // gate: for text that messages quote; it must outlive the guard.
  explicit ReplyGuard(const TextGate& gate) : gate_(gate) {}

  // A command was sent whose reply has this limit.
  void Expect(const ReplyLimit& limit) { limits_.push_back(limit); }

  // From now on the server may also send what nobody asked for: messages, each with this limit.
  void ExpectMessages(const ReplyLimit& limit) { messages_ = limit; }

  // Passes the bytes on, whole lines at a time. Errors: kProtocol (not RESP2, or an unexpected reply),
  // kTooLarge (beyond the limit). After an error the guard must not be used any more.
  // The detail gives the reason; the connection, which knows server and command, sets the message.
  Status Take(const char* bytes, size_t size, const Sink& sink);

  // The number of expected replies that are not complete.
  size_t pending() const { return limits_.size(); }

  // Call it once for each complete reply of ReplyReader: see Reply::dropped.
  uint64_t TakeDropped();

 private:
  // The limit of hiredis, too.
  static constexpr size_t kMostDepth = 7;

  enum class State { kLine, kString, kDroppedString, kRefusedString };

  Status TakeLine(Bytes line);
  Status TakeCount(Bytes line);
  Status TakeLength(Bytes line);
  void EndElement();
  Error Refused(Bytes beginning = {}) const;

  const TextGate& gate_;
  State state_ = State::kLine;
  std::string line_;      // the beginning of an incomplete line
  uint64_t left_ = 0;     // bytes of the string, with its CRLF
  uint64_t length_ = 0;   // of the string
  uint64_t charged_ = 0;  // of the limit of the reply
  size_t depth_ = 0;
  int64_t elements_left_[kMostDepth] = {};  // of the arrays that the next element is in
  uint64_t dropped_ = 0;
  std::deque<ReplyLimit> limits_;  // of the replies that have not been seen whole
  std::optional<ReplyLimit> messages_;
  std::deque<uint64_t> finished_;  // what was dropped of replies that were
};

}  // namespace prm::redis
