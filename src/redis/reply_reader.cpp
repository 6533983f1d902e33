#include "redis/reply_reader.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <new>

namespace prm::redis {

namespace {

// Longer strings go to hiredis, which need not hold them twice.
constexpr size_t kMostSimpleBytes = size_t{64} << 10;

// A line with a number of 64 bits is shorter.
constexpr size_t kMostNumberBytes = 24;

// A buffer that has grown beyond this is freed once it is empty.
constexpr size_t kKeptBufferBytes = size_t{1} << 20;

// A reply and the bytes of a string behind it.
OwnedReply MakeReply(int type, Bytes text) {
  auto* const reply = static_cast<redisReply*>(std::malloc(sizeof(redisReply) + text.size() + 1));
  if (reply == nullptr) throw std::bad_alloc();
  *reply = {};
  reply->type = type;
  reply->str = reinterpret_cast<char*>(reply + 1);
  reply->len = text.size();
  text.copy(reply->str, text.size());
  reply->str[text.size()] = '\0';
  return OwnedReply(reply, ReplyDeleter{true});
}

}  // namespace

bool ReplyReader::Feed(const char* bytes, size_t size) {
  if (hiredis_begun_) return FeedHiredis(bytes, size);
  input_.erase(0, taken_);
  taken_ = 0;
  input_.append(bytes, size);
  return true;
}

OwnedReply ReplyReader::Next() {
  if (!hiredis_begun_) {
    OwnedReply reply;
    if (TakeSimple(reply) != Found::kOther) return reply;
    if (!FeedHiredis(input_.data() + taken_, input_.size() - taken_)) return nullptr;
    input_.clear();
    taken_ = 0;
    hiredis_begun_ = true;
  }
  return NextOfHiredis();
}

ReplyReader::Found ReplyReader::TakeSimple(OwnedReply& reply) {
  const Bytes bytes = Bytes(input_).substr(taken_);
  if (bytes.empty()) return Found::kPart;
  const bool is_text = bytes.front() == '+' || bytes.front() == '-';
  if (!is_text && bytes.front() != ':' && bytes.front() != '$') return Found::kOther;
  const Bytes head = is_text ? bytes : bytes.substr(0, kMostNumberBytes);
  const Bytes line = head.substr(0, head.find('\r'));
  const size_t begin = line.size() + 2;
  if (!is_text && line.size() == kMostNumberBytes) return Found::kOther;
  if (begin > bytes.size()) return Found::kPart;
  if (bytes[begin - 1] != '\n') return Found::kOther;
  int64_t number = 0;
  const char* const end = line.data() + line.size();
  const auto [parsed, error] = std::from_chars(line.data() + 1, end, number);
  const bool is_number = error == std::errc() && parsed == end;
  if (is_text) {
    const int type = bytes.front() == '+' ? REDIS_REPLY_STATUS : REDIS_REPLY_ERROR;
    reply = MakeReply(type, line.substr(1));
    taken_ += begin;
  } else if (!is_number) {
    return Found::kOther;
  } else if (bytes.front() == ':') {
    reply = MakeReply(REDIS_REPLY_INTEGER, {});
    reply->integer = number;
    taken_ += begin;
  } else if (number == -1) {
    reply = MakeReply(REDIS_REPLY_NIL, {});
    taken_ += begin;
  } else {
    if (number < 0 || number > static_cast<int64_t>(kMostSimpleBytes)) return Found::kOther;
    const auto length = static_cast<size_t>(number);
    if (bytes.size() < begin + length + 2) return Found::kPart;
    reply = MakeReply(REDIS_REPLY_STRING, bytes.substr(begin, length));
    taken_ += begin + length + 2;
  }
  if (taken_ == input_.size()) {
    input_.clear();
    taken_ = 0;
  }
  return Found::kReply;
}

bool ReplyReader::FeedHiredis(const char* bytes, size_t size) {
  if (!hiredis_) {
    hiredis_.reset(redisReaderCreate());
    if (!hiredis_) throw std::bad_alloc();
    hiredis_->maxbuf = 0;  // do not free the buffer after every piece: see kKeptBufferBytes
  }
  no_memory_ = redisReaderFeed(hiredis_.get(), bytes, size) != REDIS_OK;
  hiredis_peak_ = std::max(hiredis_peak_, hiredis_->len);
  return !no_memory_;
}

OwnedReply ReplyReader::NextOfHiredis() {
  void* parsed = nullptr;
  if (redisReaderGetReply(hiredis_.get(), &parsed) != REDIS_OK || parsed == nullptr) return nullptr;
  OwnedReply reply(static_cast<redisReply*>(parsed));
  hiredis_begun_ = false;
  input_.assign(hiredis_->buf + hiredis_->pos, hiredis_->len - hiredis_->pos);
  if (!input_.empty() || hiredis_peak_ > kKeptBufferBytes) hiredis_.reset();
  hiredis_peak_ = 0;
  return reply;
}

ReplyReader::Problem ReplyReader::problem() const {
  if (no_memory_) return Problem::kNoMemory;
  if (!hiredis_ || hiredis_->err == 0) return Problem::kNone;
  return hiredis_->err == REDIS_ERR_OOM ? Problem::kNoMemory : Problem::kInvalid;
}

}  // namespace prm::redis
