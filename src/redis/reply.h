// One reply of Redis.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>

#include "core/bytes.h"

namespace prm::redis {

enum class ReplyType { kNil, kString, kStatus, kInteger, kArray, kError };

struct ReplyNode {
  ReplyType type = ReplyType::kNil;
  int64_t integer = 0;
  Bytes text;                           // of a string, a status or an error
  const ReplyNode* elements = nullptr;  // of an array
  size_t count = 0;
};

// A reply or one element of an array, valid as long as the Reply it came from. A peer may send any type in
// reply to any command, so every accessor returns something for every type.
class ReplyView {
 public:
  // nullptr means nil.
  explicit ReplyView(const ReplyNode* reply) : reply_(reply) {}

  bool IsNil() const { return reply_ == nullptr || reply_->type == ReplyType::kNil; }
  bool IsString() const { return Is(ReplyType::kString); }  // a bulk string
  bool IsStatus() const { return Is(ReplyType::kStatus); }  // "OK" and the like
  bool IsInteger() const { return Is(ReplyType::kInteger); }
  bool IsArray() const { return Is(ReplyType::kArray); }
  bool IsError() const { return Is(ReplyType::kError); }

  // The bytes of a bulk string, the text of a status, or an integer; nullopt for another type.
  std::optional<Bytes> String() const { return IsString() ? std::optional(Text()) : std::nullopt; }
  std::optional<Bytes> StatusText() const { return IsStatus() ? std::optional(Text()) : std::nullopt; }
  std::optional<int64_t> Integer() const {
    return IsInteger() ? std::optional<int64_t>(reply_->integer) : std::nullopt;
  }

  // The text of an error; empty for any other reply.
  Bytes ErrorText() const { return IsError() ? Text() : Bytes(); }

  // Elements of an array; 0 for anything else.
  size_t size() const { return IsArray() ? reply_->count : 0; }
  // Nil beyond the end.
  ReplyView element(size_t i) const { return ReplyView(i < size() ? reply_->elements + i : nullptr); }

 private:
  bool Is(ReplyType type) const { return reply_ != nullptr && reply_->type == type; }
  Bytes Text() const { return reply_->text; }

  const ReplyNode* reply_;
};

// A reply with all that belongs to it is one piece of memory.
struct ReplyDeleter {
  void operator()(ReplyNode* reply) const { std::free(reply); }
};
using OwnedReply = std::unique_ptr<ReplyNode, ReplyDeleter>;

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
