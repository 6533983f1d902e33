#include "rdb/byte_stream.h"

#include <algorithm>

#include "rdb/crc64.h"

namespace prm::rdb {

Status ByteStream::Advance(size_t consumed, size_t wanted, Bytes& window) {
  const Bytes passed = Bytes(buffer_).substr(begin_, consumed);
  crc_ = Crc64(passed, crc_);
  if (copy_ != nullptr) *copy_ += passed.substr(0, copy_limit_ - std::min(copy_limit_, copy_->size()));
  position_ += consumed;
  begin_ += consumed;
  size_t held = buffer_.size() - begin_;
  if (wanted > window_size_) {
    return Error{ErrorCode::kCorruptData, "a part of the file is longer than can be read at once", {}, {}};
  }
  if (held < wanted) {
    buffer_.erase(0, begin_);
    begin_ = 0;
    buffer_.resize(window_size_);
    while (held < wanted) {
      const Result<size_t> read = source_.Read(position_ + held, buffer_.data() + held, window_size_ - held);
      if (!read.ok() || read.value() == 0) {
        buffer_.resize(held);
        window = buffer_;
        return read.ok() ? Status() : Status(read.error());
      }
      held += read.value();
    }
    buffer_.resize(held);
  }
  window = Bytes(buffer_).substr(begin_);
  return {};
}

void ByteStream::CopyTo(std::string* copy, size_t limit) {
  copy_ = copy;
  copy_limit_ = limit;
}

}  // namespace prm::rdb
