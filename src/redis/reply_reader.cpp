#include "redis/reply_reader.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <new>

namespace prm::redis {

namespace {

// Longer strings go to hiredis unless they have come whole: it need not hold them twice.
constexpr size_t kMostSimpleBytes = size_t{64} << 10;

// hiredis gets bytes in pieces that begin with so many and double up to so many: what is behind a reply was
// copied in vain.
constexpr size_t kFirstPieceBytes = 256;
constexpr size_t kMostPieceBytes = size_t{64} << 10;

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

void ReplyReader::Feed(const char* bytes, size_t size) {
  if (taken_ >= input_.size() - taken_) {  // otherwise it would be moved again and again
    input_.erase(0, taken_);
    taken_ = 0;
  }
  input_.append(bytes, size);
}

OwnedReply ReplyReader::Next() {
  OwnedReply reply;
  if (!hiredis_begun_) {
    if (TakeSimple(reply) != Found::kOther) return reply;
    hiredis_begun_ = true;
    piece_ = kFirstPieceBytes;
  }
  while (!reply && taken_ < input_.size() && problem() == Problem::kNone) {
    const size_t size = std::min(piece_, input_.size() - taken_);
    if (!FeedHiredis(input_.data() + taken_, size)) return nullptr;
    taken_ += size;
    piece_ = std::min(2 * piece_, kMostPieceBytes);
    reply = NextOfHiredis();
  }
  DropTaken();
  return reply;
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
    if (number < 0) return Found::kOther;
    const auto length = static_cast<size_t>(number);
    if (bytes.size() < begin + length + 2) return length > kMostSimpleBytes ? Found::kOther : Found::kPart;
    reply = MakeReply(REDIS_REPLY_STRING, bytes.substr(begin, length));
    taken_ += begin + length + 2;
  }
  DropTaken();
  return Found::kReply;
}

void ReplyReader::DropTaken() {
  if (taken_ < input_.size()) return;
  input_.clear();
  if (input_.capacity() > kKeptBufferBytes) std::string().swap(input_);
  taken_ = 0;
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
  const size_t behind = hiredis_->len - hiredis_->pos;  // at the end of the last piece
  taken_ -= behind;
  if (behind > 0 || hiredis_peak_ > kKeptBufferBytes) hiredis_.reset();
  hiredis_peak_ = 0;
  return reply;
}

ReplyReader::Problem ReplyReader::problem() const {
  if (no_memory_) return Problem::kNoMemory;
  if (!hiredis_ || hiredis_->err == 0) return Problem::kNone;
  return hiredis_->err == REDIS_ERR_OOM ? Problem::kNoMemory : Problem::kInvalid;
}

}  // namespace prm::redis
