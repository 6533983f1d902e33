// Takes replies out of the bytes of a server.
#pragma once

#include <cstddef>
#include <string>

#include "core/bytes.h"
#include "redis/reply.h"

namespace prm::redis {

// What it is fed has passed a ReplyGuard, which also knows when a reply is complete.
class ReplyReader {
 public:
  // False: there is no memory for the bytes.
  bool Feed(const char* bytes, size_t size);

  // So many more bytes of a string are to come. False: there is no memory for them.
  bool Reserve(size_t size);

  // The oldest reply, which must be complete. nullptr: there is no memory for it.
  OwnedReply Next();

  // Whether it holds no bytes that are not part of a reply that Next returned.
  bool is_empty() const { return input_.empty(); }

 private:
  std::string input_;
  size_t taken_ = 0;  // of input_: bytes of replies that Next has returned
};

}  // namespace prm::redis
