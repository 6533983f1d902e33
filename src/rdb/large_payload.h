// The DUMP payload of a large collection, whose value is outside memory, such as in a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "core/byte_source.h"
#include "core/status.h"
#include "rdb/object_type.h"
#include "rdb/value.h"

namespace prm::rdb {

// Collections whose payload is larger need not be held in memory.
constexpr size_t kLargePayload = size_t{4} << 20;

class LargePayload : public ByteSource {
 public:
  // The payload begins with `head`: its type, and what the body lacks of the value. The rest of the value are
  // `size` bytes of `body` from `begin`, which must stay as they are; they are read once for the checksum.
  // Errors: those of the body; kCorruptData if it ends before; those of FindObjectType.
  static Result<std::shared_ptr<LargePayload>> Make(std::string head, std::shared_ptr<ByteSource> body,
                                                    uint64_t begin, uint64_t size, unsigned version);

  const ObjectType& type() const { return type_; }
  unsigned version() const { return version_; }
  // The bytes of version and checksum.
  Bytes trailer() const { return trailer_; }

  // As DecodeDump: checks the checksum before the visitor sees anything. Memory: that of DecodeObject.
  Status Decode(ValueVisitor& visitor);

  void CheckInterrupts() override { body_->CheckInterrupts(); }
  Result<size_t> Read(uint64_t offset, char* to, size_t size) override;
  uint64_t size() const override { return value_size() + trailer_.size(); }
  std::string identity() const override { return body_->identity(); }

 private:
  LargePayload(std::string head, std::shared_ptr<ByteSource> body, uint64_t begin, uint64_t size)
      : head_(std::move(head)), body_(std::move(body)), begin_(begin), body_size_(size) {}

  uint64_t value_size() const { return head_.size() + body_size_; }
  Result<uint64_t> Sum(uint64_t size);

  std::string head_;
  std::shared_ptr<ByteSource> body_;
  uint64_t begin_;
  uint64_t body_size_;
  std::string trailer_;
  ObjectType type_{};
  unsigned version_ = 0;
};

}  // namespace prm::rdb
