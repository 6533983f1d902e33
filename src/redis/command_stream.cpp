#include "redis/command_stream.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace prm::redis {

namespace {

// "*1048576\r\n"; Redis reads no longer line than 64 kB, and writes none of more than 12 bytes.
constexpr size_t kLongestLine = 32;

// The limits of a command: redis 7.0 src/networking.c, processMultibulkBuffer.
constexpr int64_t kMostArguments = INT32_MAX;

// Memory taken for an argument beside its bytes.
constexpr size_t kPlaceBytes = 48;

// Buffers that have grown beyond this are freed once they are empty.
constexpr size_t kKeptBufferBytes = size_t{4} << 20;

void Clear(std::string& buffer) {
  if (buffer.capacity() > kKeptBufferBytes) std::string().swap(buffer);
  buffer.clear();
}

// A line as the writer of a stream formats it: type, digits, CRLF.
std::optional<int64_t> ParseLine(Bytes line, char type) {
  if (line.size() < 4 || line[0] != type || line.substr(line.size() - 2) != "\r\n") return std::nullopt;
  int64_t number = 0;
  const char* const end = line.data() + line.size() - 2;
  const auto [at, failed] = std::from_chars(line.data() + 1, end, number);
  if (failed != std::errc() || at != end || number < 0) return std::nullopt;
  return number;
}

}  // namespace

CommandStream::CommandStream(uint64_t offset, const StreamLimits& limits, Interrupts& interrupts)
    : limits_(limits), interrupts_(interrupts), offset_(offset) {}

void CommandStream::Feed(Bytes bytes) {
  if (at_ == input_.size()) {
    Clear(input_);
  } else {
    input_.erase(0, at_);
  }
  at_ = 0;
  input_ += bytes;
}

Result<bool> CommandStream::Next(StreamCommand& command) {
  do {
    interrupts_.CheckInterrupts();
    const Result<bool> taken = TakePart();
    if (!taken.ok() || !taken.value()) return taken;
  } while (state_ != State::kCount || count_ == 0);
  command.arguments.clear();
  for (const Place& place : places_) {
    command.arguments.push_back(place.is_kept ? Bytes(kept_).substr(place.at, place.size) : Bytes());
  }
  command.count = std::exchange(count_, 0);
  command.begin = begin_;
  command.end = offset_;
  return true;
}

void CommandStream::Release() {
  if (count_ == 0) Clear(kept_);
}

// Takes the next part of a command from the input; false: it is not whole yet.
Result<bool> CommandStream::TakePart() {
  switch (state_) {
    case State::kCount:
      return TakeCount();
    case State::kLength:
      return TakeLength();
    case State::kArgument:
      break;
    case State::kEnd:
      return TakeEnd();
  }
  const Bytes bytes = Take(left_);
  left_ -= bytes.size();
  if (is_kept_) kept_ += bytes;
  if (left_ > 0) return false;
  state_ = State::kEnd;
  return true;
}

Result<bool> CommandStream::TakeCount() {
  Bytes line;
  const Result<bool> read = TakeLine(line);
  if (!read.ok() || !read.value()) return read;
  if (line == "\n" || line == "\r\n") return true;  // keeps the link alive
  const auto count = ParseLine(line, '*');
  if (!count || *count < 1 || *count > kMostArguments) return Malformed("beginning of a command");
  begin_ = offset_ - line.size();
  count_ = static_cast<size_t>(*count);
  seen_ = 0;
  Clear(kept_);
  places_.clear();
  charged_ = 0;
  state_ = State::kLength;
  return true;
}

Result<bool> CommandStream::TakeLength() {
  Bytes line;
  const Result<bool> read = TakeLine(line);
  if (!read.ok() || !read.value()) return read;
  const auto length = ParseLine(line, '$');
  if (!length) return Malformed("length of an argument");
  left_ = static_cast<uint64_t>(*length);
  is_kept_ = left_ <= limits_.max_argument_bytes;
  const uint64_t price = kPlaceBytes + (is_kept_ ? left_ : 0);
  if (charged_ > limits_.max_command_bytes || price > limits_.max_command_bytes - charged_) {
    charged_ = limits_.max_command_bytes + 1;  // nothing more of this command is kept
    is_kept_ = false;
  } else {
    charged_ += price;
    places_.push_back({kept_.size(), static_cast<size_t>(is_kept_ ? left_ : 0), is_kept_});
    // A buffer that grows step by step takes up to three times as much meanwhile.
    if (is_kept_ && left_ > kKeptBufferBytes) kept_.reserve(kept_.size() + left_);
  }
  state_ = State::kArgument;
  return true;
}

Result<bool> CommandStream::TakeEnd() {
  if (input_.size() - at_ < 2) return false;
  if (Take(2) != "\r\n") return Malformed("end of an argument");
  state_ = ++seen_ == count_ ? State::kCount : State::kLength;
  return true;
}

// The next line, with its end; false: it is not whole yet.
Result<bool> CommandStream::TakeLine(Bytes& line) {
  const Bytes rest = Bytes(input_).substr(at_, kLongestLine);
  const size_t end = rest.find('\n');
  if (end == Bytes::npos)
    return rest.size() < kLongestLine ? Result<bool>(false) : Malformed("end of a line");
  line = Take(end + 1);
  return true;
}

// The next bytes of the input, `most` of them or what there is.
Bytes CommandStream::Take(uint64_t most) {
  const Bytes bytes = Bytes(input_).substr(at_, static_cast<size_t>(std::min<uint64_t>(most, SIZE_MAX)));
  at_ += bytes.size();
  offset_ += bytes.size();
  return bytes;
}

Error CommandStream::Malformed(const char* lacking) const {
  return {ErrorCode::kProtocol,
          "the replication stream is not one of commands",
          "Before byte " + std::to_string(offset_) + " there is no " + lacking + ".",
          {}};
}

}  // namespace prm::redis
