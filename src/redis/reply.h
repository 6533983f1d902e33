// One reply of Redis.
#pragma once

#include <hiredis/hiredis.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>

#include "core/bytes.h"

namespace prm::redis {

// A reply or one element of an array, valid as long as the Reply it came from. A peer may send any type in
// reply to any command, so every accessor returns something for every type.
class ReplyView {
 public:
  // nullptr means nil.
  explicit ReplyView(const redisReply* reply) : reply_(reply) {}

  bool IsNil() const { return reply_ == nullptr || reply_->type == REDIS_REPLY_NIL; }
  bool IsString() const { return Is(REDIS_REPLY_STRING); }  // a bulk string
  bool IsStatus() const { return Is(REDIS_REPLY_STATUS); }  // "OK" and the like
  bool IsInteger() const { return Is(REDIS_REPLY_INTEGER); }
  bool IsArray() const { return Is(REDIS_REPLY_ARRAY); }
  bool IsError() const { return Is(REDIS_REPLY_ERROR); }

  // The bytes of a bulk string, the text of a status, or an integer; nullopt for another type.
  std::optional<Bytes> String() const { return IsString() ? std::optional(Text()) : std::nullopt; }
  std::optional<Bytes> StatusText() const { return IsStatus() ? std::optional(Text()) : std::nullopt; }
  std::optional<int64_t> Integer() const {
    return IsInteger() ? std::optional<int64_t>(reply_->integer) : std::nullopt;
  }

  // The text of an error; empty for any other reply.
  Bytes ErrorText() const { return IsError() ? Text() : Bytes(); }

  // Elements of an array; 0 for anything else.
  size_t size() const { return IsArray() ? reply_->elements : 0; }
  // Nil beyond the end.
  ReplyView element(size_t i) const { return ReplyView(i < size() ? reply_->element[i] : nullptr); }

 private:
  bool Is(int type) const { return reply_ != nullptr && reply_->type == type; }
  Bytes Text() const { return {reply_->str, reply_->len}; }

  const redisReply* reply_;
};

struct ReplyDeleter {
  bool is_block = false;  // one piece of malloc; otherwise hiredis made it
  void operator()(redisReply* reply) const {
    if (is_block)
      std::free(reply);
    else
      freeReplyObject(reply);
  }
};
using OwnedReply = std::unique_ptr<redisReply, ReplyDeleter>;

// Owns the reply.
class Reply : public ReplyView {
 public:
  // dropped: see dropped().
  explicit Reply(OwnedReply reply, uint64_t dropped = 0)
      : ReplyView(reply.get()), dropped_(dropped), owner_(std::move(reply)) {}

  // If not 0, strings exceeded the limit of the command and are nil instead: the length of the longest of
  // them.
  uint64_t dropped() const { return dropped_; }

 private:
  uint64_t dropped_;
  OwnedReply owner_;
};

}  // namespace prm::redis
