// Takes replies out of the bytes of a server.
#pragma once

#include <hiredis/hiredis.h>

#include <memory>
#include <string>

#include "redis/reply.h"

namespace prm::redis {

// Numbers, nil, short strings, statuses and errors, as most replies are, it reads itself; hiredis, which
// takes several times as long for one, reads the others. What it is
// fed has passed a ReplyGuard.
class ReplyReader {
 public:
  void Feed(const char* bytes, size_t size);

  // The next complete reply; none: more bytes are needed, or they are invalid, as problem() then says.
  OwnedReply Next();

  enum class Problem { kNone, kInvalid, kNoMemory };
  Problem problem() const;
  // The message of hiredis about invalid bytes.
  const char* words() const { return hiredis_->errstr; }

  // Whether it holds no bytes that are not part of a reply that Next returned.
  bool is_empty() const { return input_.empty() && !hiredis_begun_; }

  // About so many bytes of such it holds.
  size_t held() const {
    return input_.size() - taken_ + (hiredis_begun_ ? hiredis_->len - hiredis_->pos : 0);
  }

 private:
  struct Deleter {
    void operator()(redisReader* reader) const { redisReaderFree(reader); }
  };
  enum class Found { kReply, kPart, kOther };

  Found TakeSimple(OwnedReply& reply);
  bool FeedHiredis(const char* bytes, size_t size);
  OwnedReply NextOfHiredis();
  void DropTaken();

  std::string input_;  // bytes of which `taken_` are in replies, or with hiredis
  size_t taken_ = 0;
  size_t piece_ = 0;  // what hiredis gets next
  std::unique_ptr<redisReader, Deleter> hiredis_;
  bool hiredis_begun_ = false;  // it has bytes of a reply that is not complete yet
  size_t hiredis_peak_ = 0;     // the most bytes it held since it was last empty
  bool no_memory_ = false;
};

}  // namespace prm::redis
