#include "lib/cpp/redis_client.h"

#include <stdexcept>

namespace prm::test {

RedisClient::RedisClient(int port) : context_(redisConnect("127.0.0.1", port)) {
  if (!context_) throw std::runtime_error("redisConnect failed");
  if (context_->err != 0) throw std::runtime_error(std::string("redisConnect: ") + context_->errstr);
}

Reply RedisClient::Command(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv;
  std::vector<size_t> lengths;
  for (const std::string& argument : arguments) {
    argv.push_back(argument.data());
    lengths.push_back(argument.size());
  }
  Reply reply(static_cast<redisReply*>(
      redisCommandArgv(context_.get(), static_cast<int>(argv.size()), argv.data(), lengths.data())));
  if (!reply) throw std::runtime_error(arguments.at(0) + ": " + context_->errstr);
  if (reply->type == REDIS_REPLY_ERROR) {
    throw std::runtime_error(arguments.at(0) + ": " + std::string(reply->str, reply->len));
  }
  return reply;
}

std::string RedisClient::String(const std::vector<std::string>& arguments) {
  return Text(Command(arguments).get());
}

long long RedisClient::Integer(const std::vector<std::string>& arguments) {
  const Reply reply = Command(arguments);
  if (reply->type != REDIS_REPLY_INTEGER) throw std::runtime_error(arguments[0] + ": not an integer");
  return reply->integer;
}

std::vector<std::string> RedisClient::Strings(const std::vector<std::string>& arguments) {
  const Reply reply = Command(arguments);
  if (reply->type != REDIS_REPLY_ARRAY) throw std::runtime_error(arguments[0] + ": not an array");
  std::vector<std::string> strings;
  for (size_t i = 0; i < reply->elements; ++i) strings.push_back(Text(reply->element[i]));
  return strings;
}

std::string Text(const redisReply* reply) {
  if (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS) {
    throw std::runtime_error("reply is not a string");
  }
  return std::string(reply->str, reply->len);
}

}  // namespace prm::test
