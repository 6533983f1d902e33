#include "redis/reply_guard.h"

#include <algorithm>
#include <charconv>

namespace prm::redis {

namespace {

constexpr char kNil[] = "$-1\r\n";

// A line is a status, an error, a number or a length.
constexpr size_t kMostLineBytes = size_t{64} << 10;

// How much of a refused string the message shows.
constexpr size_t kBeginningBytes = 64;

Error ProtocolError(std::string detail) { return {ErrorCode::kProtocol, {}, std::move(detail), {}}; }

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

Status ReplyGuard::Take(const char* bytes, size_t size, const Sink& sink) {
  const char* const end = bytes + size;
  const char* passed = bytes;  // the sink has received everything before
  const auto pass = [&](const char* to) {
    if (passed != to) sink(passed, static_cast<size_t>(to - passed));
    passed = to;
  };
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
      if (length == 0 || is_begun) {
        pass(start);
        line_.append(start, taken);
        passed = at;
        if (length == 0) return {};
      }
      const Bytes line = is_begun ? Bytes(line_) : Bytes(start, taken);
      PRM_RETURN_IF_ERROR(TakeLine(line.substr(0, line.size() - 2)));
      if (state_ == State::kRefusedString) {
        const uint64_t arrived = std::min<uint64_t>(length_, static_cast<uint64_t>(end - at));
        return Refused({at, std::min<size_t>(arrived, kBeginningBytes)});
      }
      if (state_ == State::kDroppedString) {
        if (!is_begun) pass(start);
        passed = at;
      } else if (is_begun) {
        sink(line_.data(), line_.size());
      }
      line_.clear();
      continue;
    }
    const auto taken = static_cast<size_t>(std::min<uint64_t>(left_, static_cast<uint64_t>(end - at)));
    left_ -= taken;
    at += taken;
    if (state_ == State::kDroppedString) passed = at;
    if (left_ > 0) break;
    if (state_ == State::kDroppedString) sink(kNil, sizeof(kNil) - 1);
    state_ = State::kLine;
    EndElement();
  }
  pass(end);
  return {};
}

Status ReplyGuard::TakeLine(Bytes line) {
  if (limits_.empty() && !messages_) return ProtocolError("It sent a reply that nobody asked for.");
  if (limits_.empty()) limits_.push_back(*messages_);
  switch (line.empty() ? '\0' : line.front()) {
    case '+':
    case '-':
    case ':':
      charged_ += line.size();
      if (charged_ > limits_.front().bytes) return Refused();
      EndElement();
      return {};
    case '$':
      return TakeLength(line.substr(1));
    case '*':
      return TakeCount(line.substr(1));
    default:
      break;
  }
  return ProtocolError("Protocol error, got \"" + gate_.Pass(line.substr(0, 1)) + "\" as reply type byte.");
}

Status ReplyGuard::TakeCount(Bytes line) {
  int64_t count = 0;
  if (!ParseNumber(line, count) || count < -1) return ProtocolError("Protocol error, invalid array length.");
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
  elements_left_[depth_++] = count;
  return {};
}

Status ReplyGuard::TakeLength(Bytes line) {
  int64_t length = 0;
  if (!ParseNumber(line, length) || length < -1) {
    return ProtocolError("Protocol error, invalid length of a string.");
  }
  if (length < 0) {
    EndElement();
    return {};
  }
  length_ = static_cast<uint64_t>(length);
  left_ = length_ + 2;
  state_ = State::kString;
  if (length_ <= limits_.front().bytes - charged_) {
    charged_ += length_;
  } else if (limits_.front().drops_strings) {
    state_ = State::kDroppedString;
    dropped_ = std::max(dropped_, length_);
  } else {
    state_ = State::kRefusedString;
  }
  return {};
}

// The element is complete, and so may be the arrays that contain it.
void ReplyGuard::EndElement() {
  while (depth_ > 0 && --elements_left_[depth_ - 1] == 0) --depth_;
  if (depth_ > 0) return;
  finished_.push_back(dropped_);
  limits_.pop_front();
  dropped_ = 0;
  charged_ = 0;
}

// beginning: the part of the refused string that has arrived.
Error ReplyGuard::Refused(Bytes beginning) const {
  std::string detail = "The limit of the reply is " + std::to_string(limits_.front().bytes) + " bytes.";
  if (state_ == State::kRefusedString) {
    detail = "It announced a string of " + std::to_string(length_) + " bytes" +
             (beginning.empty() ? std::string() : " that begins with \"" + gate_.Pass(beginning) + "\"") +
             ". " + detail;
  }
  return {ErrorCode::kTooLarge, {}, std::move(detail), {}};
}

uint64_t ReplyGuard::TakeDropped() {
  if (finished_.empty()) return 0;
  const uint64_t dropped = finished_.front();
  finished_.pop_front();
  return dropped;
}

}  // namespace prm::redis
