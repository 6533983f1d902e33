// One reply of Redis.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.h"

namespace prm::redis {

// A reply, or one element of an array.
struct ReplyValue {
  enum class Type : char { kNil, kString, kStatus, kError, kInteger, kArray };
  Type type = Type::kNil;
  int64_t integer = 0;
  std::string text;  // of a bulk string, a status or an error
  std::vector<ReplyValue> elements;
};

// A reply or one element of an array, valid as long as the Reply it came from stays where it is. A peer may
// send any type in reply to any command, so every accessor returns something for every type.
class ReplyView {
 public:
  // nullptr means nil.
  explicit ReplyView(const ReplyValue* reply) : reply_(reply) {}

  bool IsNil() const { return reply_ == nullptr || reply_->type == ReplyValue::Type::kNil; }
  bool IsString() const { return Is(ReplyValue::Type::kString); }  // a bulk string
  bool IsStatus() const { return Is(ReplyValue::Type::kStatus); }  // "OK" and the like
  bool IsInteger() const { return Is(ReplyValue::Type::kInteger); }
  bool IsArray() const { return Is(ReplyValue::Type::kArray); }
  bool IsError() const { return Is(ReplyValue::Type::kError); }

  // The bytes of a bulk string, the text of a status, or an integer; nullopt for another type.
  std::optional<Bytes> String() const { return IsString() ? std::optional(Text()) : std::nullopt; }
  std::optional<Bytes> StatusText() const { return IsStatus() ? std::optional(Text()) : std::nullopt; }
  std::optional<int64_t> Integer() const {
    return IsInteger() ? std::optional<int64_t>(reply_->integer) : std::nullopt;
  }

  // The text of an error; empty for any other reply.
  Bytes ErrorText() const { return IsError() ? Text() : Bytes(); }

  // Elements of an array; 0 for anything else.
  size_t size() const { return IsArray() ? reply_->elements.size() : 0; }
  // Nil beyond the end.
  ReplyView element(size_t i) const { return ReplyView(i < size() ? &reply_->elements[i] : nullptr); }

 private:
  bool Is(ReplyValue::Type type) const { return reply_ != nullptr && reply_->type == type; }
  Bytes Text() const { return reply_->text; }

  const ReplyValue* reply_;
};

// Owns the reply.
class Reply : public ReplyView {
 public:
  // dropped: see dropped().
  explicit Reply(ReplyValue value, uint64_t dropped = 0)
      : ReplyView(&value_), dropped_(dropped), value_(std::move(value)) {}
  Reply(Reply&& other) noexcept
      : ReplyView(&value_), dropped_(other.dropped_), value_(std::move(other.value_)) {}
  Reply& operator=(Reply&& other) noexcept {
    dropped_ = other.dropped_;
    value_ = std::move(other.value_);
    return *this;
  }
  Reply(const Reply&) = delete;
  Reply& operator=(const Reply&) = delete;
  ~Reply() = default;

  // The bytes of a bulk string, without a copy; empty for another type. They are gone from the reply.
  std::string TakeString() { return IsString() ? std::move(value_.text) : std::string(); }

  // If not 0, strings exceeded the limit of the command and are nil instead: the length of the longest of
  // them.
  uint64_t dropped() const { return dropped_; }

 private:
  uint64_t dropped_;
  ReplyValue value_;
};

}  // namespace prm::redis
