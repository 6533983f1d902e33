// Reads replies in RESP2 from the bytes of a peer, which may announce anything: memory is taken within
// limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"
#include "core/text_gate.h"
#include "redis/reply.h"

namespace prm::redis {

// The memory that one element of a reply takes, without the bytes of a string.
constexpr uint64_t kElementBytes = 96;
static_assert(sizeof(ReplyValue) <= kElementBytes);

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

// Format: RESP2, redis.io/docs/reference/protocol-spec.
class ReplyReader {
 public:
  // gate: for text that messages quote; it must outlive the reader.
  explicit ReplyReader(const TextGate& gate) : gate_(gate) {}

  // A command was sent whose reply has this limit.
  void Expect(const ReplyLimit& limit) { limits_.push_back(limit); }

  // Reads all of the bytes. Errors: kProtocol (not RESP2, or an unexpected reply), kTooLarge (beyond the
  // limit, or no memory). After an error the reader must not be used any more. The detail gives the reason;
  // the connection, which knows server and command, sets the message.
  Status Take(const char* bytes, size_t size);

  // The oldest of the complete replies, each once; nullopt: there is none.
  std::optional<Reply> Next();

  // The number of expected replies that are not complete.
  size_t pending() const { return limits_.size(); }

  // Whether there is nothing of a reply, neither whole nor in part.
  bool IsIdle() const;

 private:
  // Deeper than replies of Redis.
  static constexpr size_t kMostDepth = 7;

  enum class State { kLine, kString, kDroppedString, kRefusedString };
  struct OpenArray {
    ReplyValue* next;
    int64_t left;
  };

  Status TakeLine(Bytes line);
  Status TakeText(ReplyValue::Type type, Bytes line);
  Status TakeCount(Bytes line);
  Status TakeLength(Bytes line);
  void EndElement();
  Error Refused(Bytes beginning = {}) const;
  ReplyValue& element() { return depth_ == 0 ? reply_ : *open_[depth_ - 1].next; }

  const TextGate& gate_;
  State state_ = State::kLine;
  std::string line_;      // the beginning of an incomplete line
  uint64_t left_ = 0;     // bytes of the string, with its CRLF
  uint64_t length_ = 0;   // of the string
  uint64_t charged_ = 0;  // of the limit of the reply
  ReplyValue reply_;      // the incomplete one
  size_t depth_ = 0;
  OpenArray open_[kMostDepth] = {};  // the arrays that the next element is in
  uint64_t dropped_ = 0;
  std::deque<ReplyLimit> limits_;  // of the replies that are not complete
  std::vector<Reply> complete_;
  size_t taken_ = 0;  // of complete_
};

}  // namespace prm::redis
