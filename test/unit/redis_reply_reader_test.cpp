#include "redis/reply_reader.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace prm::redis {
namespace {

// A reply in words.
std::string Show(const ReplyView& reply) {
  if (reply.IsNil()) return "nil";
  if (const auto number = reply.Integer()) return ":" + std::to_string(*number);
  if (const auto text = reply.String()) return "$" + std::string(*text);
  if (const auto text = reply.StatusText()) return "+" + std::string(*text);
  if (reply.IsError()) return "-" + std::string(reply.ErrorText());
  std::string shown = "[";
  for (size_t i = 0; i < reply.size(); ++i) shown += (i > 0 ? " " : "") + Show(reply.element(i));
  return shown + "]";
}

// The replies in bytes that are fed in pieces of a size.
std::vector<std::string> Read(const std::string& bytes, size_t piece) {
  ReplyReader reader;
  std::vector<std::string> shown;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    reader.Feed(bytes.data() + at, std::min(piece, bytes.size() - at));
    while (OwnedReply reply = reader.Next()) shown.push_back(Show(Reply(std::move(reply))));
    EXPECT_EQ(reader.problem(), ReplyReader::Problem::kNone);
  }
  EXPECT_TRUE(reader.is_empty());
  return shown;
}

TEST(ReplyReader, ReadsRepliesWhereverTheyAreCut) {
  const std::string long_text(70000, 'x');
  const std::string bytes =
      ":1\r\n$3\r\nabc\r\n$0\r\n\r\n*3\r\n:7\r\n$-1\r\n*1\r\n$2\r\n\r\n\r\n:-9223372036854775808\r\n+OK\r\n"
      "$-1\r\n$5\r\na\r\nb:\r\n*0\r\n-ERR no\r\n:2\r\n"
      "-WRONGTYPE Operation against a \rkey\r\n+Background saving started again\r\n$4\r\nlast\r\n";
  const std::vector<std::string> expected = {":1",
                                             "$abc",
                                             "$",
                                             "[:7 nil [$\r\n]]",
                                             ":-9223372036854775808",
                                             "+OK",
                                             "nil",
                                             "$a\r\nb:",
                                             "[]",
                                             "-ERR no",
                                             ":2",
                                             "-WRONGTYPE Operation against a \rkey",
                                             "+Background saving started again",
                                             "$last"};
  for (size_t piece = 1; piece <= bytes.size(); ++piece) ASSERT_EQ(Read(bytes, piece), expected) << piece;
  const std::string with_long = ":1\r\n$70000\r\n" + long_text + "\r\n:2\r\n$1\r\nz\r\n";
  const std::vector<std::string> long_expected = {":1", "$" + long_text, ":2", "$z"};
  for (const size_t piece : {size_t{7}, size_t{1000}, size_t{65536}, size_t{70014}, with_long.size()})
    ASSERT_EQ(Read(with_long, piece), long_expected) << piece;
}

TEST(ReplyReader, LeavesInvalidBytesToHiredis) {
  for (const std::string bytes : {":1x\r\n", "$ 3\r\nabc\r\n", "?\r\n", ":99999999999999999999999999\r\n"}) {
    ReplyReader reader;
    reader.Feed(bytes.data(), bytes.size());
    EXPECT_EQ(reader.Next(), nullptr) << bytes;
    EXPECT_EQ(reader.problem(), ReplyReader::Problem::kInvalid) << bytes;
    EXPECT_NE(std::string(reader.words()), "") << bytes;
  }
}

// Replies to TIME, as servers before 7.0 are asked for with every key, of which many can be held.
TEST(ReplyReader, AnArrayCostsTheSameHoweverMuchIsBehindIt) {
  constexpr size_t kCount = 50000;
  const std::string one = "*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n";
  std::string bytes;
  for (size_t i = 0; i < kCount; ++i) bytes += one;
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(Read(bytes, bytes.size()).size(), kCount);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
}

}  // namespace
}  // namespace prm::redis
