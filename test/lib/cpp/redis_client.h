// A blocking connection for tests: what they need to prepare data and to ask Redis for the truth.
#pragma once

#include <hiredis/hiredis.h>

#include <memory>
#include <string>
#include <vector>

namespace prm::test {

struct ReplyDeleter {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, ReplyDeleter>;

class RedisClient {
 public:
  // Connects to 127.0.0.1. Throws std::runtime_error when that fails.
  explicit RedisClient(int port);

  // Sends one command, each argument binary-safe, and returns the reply.
  // Throws std::runtime_error on an error reply or a lost connection.
  Reply Command(const std::vector<std::string>& arguments);

  // Does so for replies with an obvious C++ form.
  std::string String(const std::vector<std::string>& arguments);                // status or bulk string
  long long Integer(const std::vector<std::string>& arguments);                 // integer
  std::vector<std::string> Strings(const std::vector<std::string>& arguments);  // array of bulk strings

 private:
  struct ContextDeleter {
    void operator()(redisContext* context) const { redisFree(context); }
  };
  std::unique_ptr<redisContext, ContextDeleter> context_;
};

// The bytes of a status or bulk string reply.
std::string Text(const redisReply* reply);

}  // namespace prm::test
