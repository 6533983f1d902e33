#include "redis/reply_reader.h"

#include <algorithm>
#include <charconv>
#include <new>
#include <utility>

namespace prm::redis {

namespace {

// A line is a status, an error, a number or a length.
constexpr size_t kMostLineBytes = size_t{64} << 10;

// How much of a refused string the message shows.
constexpr size_t kBeginningBytes = 64;

// "\r\n"
constexpr uint64_t kLineEndSize = 2;

Error ProtocolError(std::string detail) { return {ErrorCode::kProtocol, {}, std::move(detail), {}}; }

template <typename Allocate>
Status WithinMemory(Allocate allocate) {
  try {
    allocate();
    return {};
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kTooLarge, {}, "There is not enough memory for it.", {}};
  }
}

bool ParseNumber(Bytes text, int64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// The position after the CRLF of the first line; 0 if it is incomplete.
size_t FindLineEnd(Bytes text) {
  const size_t at = text.find("\r\n");
  return at == Bytes::npos ? 0 : at + 2;
}

}  // namespace

Status ReplyReader::Take(const char* bytes, size_t size) {
  complete_.erase(complete_.begin(),
                  complete_.begin() + static_cast<std::ptrdiff_t>(std::exchange(taken_, 0)));
  const char* const end = bytes + size;
  for (const char* at = bytes; at < end;) {
    if (state_ == State::kLine) {
      const char* const start = at;
      const bool is_begun = !line_.empty();
      // A CRLF may be split between two pieces.
      const bool ends_at_once = is_begun && line_.back() == '\r' && *at == '\n';
      const size_t length = ends_at_once ? 1 : FindLineEnd({at, static_cast<size_t>(end - at)});
      const size_t taken = length > 0 ? length : static_cast<size_t>(end - at);
      if (line_.size() + taken > kMostLineBytes) return ProtocolError("A line of its reply does not end.");
      at += taken;
      if (length == 0 || is_begun) line_.append(start, taken);
      if (length == 0) return {};
      const Bytes line = is_begun ? Bytes(line_) : Bytes(start, taken);
      PRM_RETURN_IF_ERROR(TakeLine(line.substr(0, line.size() - kLineEndSize)));
      if (state_ == State::kRefusedString) {
        const uint64_t arrived = std::min<uint64_t>(length_, static_cast<uint64_t>(end - at));
        return Refused({at, std::min<size_t>(arrived, kBeginningBytes)});
      }
      line_.clear();
      continue;
    }
    const auto taken = static_cast<size_t>(std::min<uint64_t>(left_, static_cast<uint64_t>(end - at)));
    if (state_ == State::kString && left_ > kLineEndSize)
      element().text.append(at, std::min<uint64_t>(taken, left_ - kLineEndSize));
    left_ -= taken;
    at += taken;
    if (left_ > 0) break;
    state_ = State::kLine;
    EndElement();
  }
  return {};
}

std::optional<Reply> ReplyReader::Next() {
  if (taken_ == complete_.size()) return std::nullopt;
  return std::move(complete_[taken_++]);
}

bool ReplyReader::IsIdle() const {
  return taken_ == complete_.size() && state_ == State::kLine && line_.empty() && depth_ == 0;
}

Status ReplyReader::TakeLine(Bytes line) {
  if (limits_.empty()) return ProtocolError("It sent a reply that nobody asked for.");
  const Bytes rest = line.substr(line.empty() ? 0 : 1);
  switch (line.empty() ? '\0' : line.front()) {
    case '+':
      return TakeText(ReplyValue::Type::kStatus, rest);
    case '-':
      return TakeText(ReplyValue::Type::kError, rest);
    case ':':
      element().type = ReplyValue::Type::kInteger;
      if (!ParseNumber(rest, element().integer)) return ProtocolError("Protocol error, invalid integer.");
      EndElement();
      return {};
    case '$':
      return TakeLength(rest);
    case '*':
      return TakeCount(rest);
    default:
      break;
  }
  return ProtocolError("Protocol error, got \"" + gate_.Pass(line.substr(0, 1)) + "\" as reply type byte.");
}

Status ReplyReader::TakeText(ReplyValue::Type type, Bytes line) {
  charged_ += line.size();
  if (charged_ > limits_.front().bytes) return Refused();
  element().type = type;
  element().text = line;
  EndElement();
  return {};
}

Status ReplyReader::TakeCount(Bytes line) {
  int64_t count = 0;
  if (!ParseNumber(line, count) || count < -1) return ProtocolError("Protocol error, invalid array length.");
  if (count >= 0) element().type = ReplyValue::Type::kArray;
  if (count <= 0) {
    EndElement();
    return {};
  }
  const uint64_t left = limits_.front().bytes - charged_;
  if (static_cast<uint64_t>(count) > left / kElementBytes) {
    return Error{ErrorCode::kTooLarge,
                 {},
                 "It announced an array of " + std::to_string(count) +
                     " elements. The limit of the reply is " + std::to_string(limits_.front().bytes) +
                     " bytes.",
                 {}};
  }
  if (depth_ == kMostDepth) return ProtocolError("Its reply nests arrays too deeply.");
  charged_ += static_cast<uint64_t>(count) * kElementBytes;
  std::vector<ReplyValue>& elements = element().elements;
  PRM_RETURN_IF_ERROR(WithinMemory([&] { elements.resize(static_cast<size_t>(count)); }));
  open_[depth_++] = {elements.data(), count};
  return {};
}

Status ReplyReader::TakeLength(Bytes line) {
  int64_t length = 0;
  if (!ParseNumber(line, length) || length < -1) {
    return ProtocolError("Protocol error, invalid length of a string.");
  }
  if (length < 0) {
    EndElement();
    return {};
  }
  length_ = static_cast<uint64_t>(length);
  left_ = length_ + kLineEndSize;
  state_ = State::kString;
  if (length_ <= limits_.front().bytes - charged_) {
    charged_ += length_;
    element().type = ReplyValue::Type::kString;
    return WithinMemory([&] { element().text.reserve(length_); });
  }
  if (limits_.front().drops_strings) {
    state_ = State::kDroppedString;
    dropped_ = std::max(dropped_, length_);
  } else {
    state_ = State::kRefusedString;
  }
  return {};
}

// The element is complete, and so may be the arrays that contain it.
void ReplyReader::EndElement() {
  for (; depth_ > 0; --depth_) {
    OpenArray& array = open_[depth_ - 1];
    ++array.next;
    if (--array.left > 0) return;
  }
  complete_.emplace_back(std::exchange(reply_, {}), dropped_);
  limits_.pop_front();
  dropped_ = 0;
  charged_ = 0;
}

// beginning: the part of the refused string that has arrived.
Error ReplyReader::Refused(Bytes beginning) const {
  std::string detail = "The limit of the reply is " + std::to_string(limits_.front().bytes) + " bytes.";
  if (state_ == State::kRefusedString) {
    detail = "It announced a string of " + std::to_string(length_) + " bytes" +
             (beginning.empty() ? std::string() : " that begins with \"" + gate_.Pass(beginning) + "\"") +
             ". " + detail;
  }
  return {ErrorCode::kTooLarge, {}, std::move(detail), {}};
}

}  // namespace prm::redis
