// One reply of Redis.
#pragma once

#include <hiredis/hiredis.h>

#include <cassert>
#include <cstdint>
#include <memory>

#include "core/bytes.h"

namespace prm::redis {

// A reply or one element of an array, valid as long as the Reply it came from.
class ReplyView {
 public:
  explicit ReplyView(const redisReply* reply) : reply_(reply) {}

  bool IsNil() const { return reply_->type == REDIS_REPLY_NIL; }
  bool IsString() const { return reply_->type == REDIS_REPLY_STRING; }  // a bulk string
  bool IsStatus() const { return reply_->type == REDIS_REPLY_STATUS; }  // "OK" and the like
  bool IsInteger() const { return reply_->type == REDIS_REPLY_INTEGER; }
  bool IsArray() const { return reply_->type == REDIS_REPLY_ARRAY; }
  bool IsError() const { return reply_->type == REDIS_REPLY_ERROR; }

  // The bytes of a string, status or error.
  Bytes AsBytes() const {
    assert(IsString() || IsStatus() || IsError());
    return {reply_->str, reply_->len};
  }

  int64_t AsInteger() const {
    assert(IsInteger());
    return reply_->integer;
  }

  // Elements of an array; 0 for anything else.
  size_t size() const { return IsArray() ? reply_->elements : 0; }
  ReplyView element(size_t i) const {
    assert(i < size());
    return ReplyView(reply_->element[i]);
  }

 private:
  const redisReply* reply_;
};

// Owns the reply.
class Reply : public ReplyView {
 public:
  explicit Reply(redisReply* reply) : ReplyView(reply), owner_(reply) {}

 private:
  struct Deleter {
    void operator()(redisReply* reply) const { freeReplyObject(reply); }
  };
  std::unique_ptr<redisReply, Deleter> owner_;
};

}  // namespace prm::redis
