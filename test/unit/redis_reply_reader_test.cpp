#include "redis/reply_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace prm::redis {
namespace {

std::string Text(const ReplyView& reply) {
  if (reply.IsInteger()) return ":" + std::to_string(*reply.Integer());
  if (reply.IsString()) return "$" + std::string(*reply.String());
  if (reply.IsStatus()) return "+" + std::string(*reply.StatusText());
  if (reply.IsError()) return "-" + std::string(reply.ErrorText());
  if (reply.IsNil()) return "nil";
  std::string text = "[";
  for (size_t i = 0; i < reply.size(); ++i) text += (i == 0 ? "" : " ") + Text(reply.element(i));
  return text + "]";
}

// Feeds the bytes in pieces of one size; returns the replies, and the error if there is one.
struct Read {
  std::vector<std::string> replies;
  std::vector<uint64_t> dropped;
  Status status;
  bool is_idle = false;
};

Read ReadAll(const std::string& bytes, const std::vector<ReplyLimit>& limits, size_t piece) {
  const TextGate gate;
  ReplyReader reader(gate);
  for (const ReplyLimit& limit : limits) reader.Expect(limit);
  Read read;
  for (size_t at = 0; at < bytes.size() && read.status.ok(); at += piece) {
    read.status = reader.Take(bytes.data() + at, std::min(piece, bytes.size() - at));
    // One is left for later, as a caller may do.
    for (size_t i = reader.pending() == 0 ? 0 : 1; i < 2; ++i) {
      const std::optional<Reply> reply = reader.Next();
      if (!reply) break;
      read.replies.push_back(Text(*reply));
      read.dropped.push_back(reply->dropped());
    }
  }
  while (const std::optional<Reply> reply = reader.Next()) {
    read.replies.push_back(Text(*reply));
    read.dropped.push_back(reply->dropped());
  }
  read.is_idle = reader.IsIdle();
  return read;
}

TEST(ReplyReaderTest, ReadsRepliesHoweverTheyAreCut) {
  const std::string bytes =
      "+OK\r\n:-7\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n$5\r\na\r\nbc\r\n"
      "*4\r\n*2\r\n$1\r\nx\r\n:1\r\n*0\r\n$-1\r\n-ERR a\rb\r\n";
  const std::vector<std::string> expected = {"+OK", ":-7", "nil",      "nil",
                                             "[]",  "$",   "$a\r\nbc", "[[$x :1] [] nil -ERR a\rb]"};
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    const Read read = ReadAll(bytes, std::vector<ReplyLimit>(8, kSmallReply), piece);
    EXPECT_TRUE(read.status.ok()) << read.status.error().detail;
    EXPECT_EQ(read.replies, expected) << piece;
    EXPECT_EQ(read.dropped, std::vector<uint64_t>(8)) << piece;
    EXPECT_TRUE(read.is_idle);
  }
}

TEST(ReplyReaderTest, ReadsTheSmallestAndLargestIntegers) {
  const Read read =
      ReadAll(":-9223372036854775808\r\n:9223372036854775807\r\n", {kSmallReply, kSmallReply}, 3);
  EXPECT_EQ(read.replies, (std::vector<std::string>{":-9223372036854775808", ":9223372036854775807"}));
}

TEST(ReplyReaderTest, IsIdleOnlyBetweenReplies) {
  const std::string bytes = "*2\r\n$2\r\nab\r\n:1\r\n";
  const TextGate gate;
  ReplyReader reader(gate);
  reader.Expect(kSmallReply);
  for (const char& byte : bytes) {
    EXPECT_EQ(reader.IsIdle(), &byte == &bytes[0]);
    ASSERT_TRUE(reader.Take(&byte, 1).ok());
  }
  EXPECT_FALSE(reader.IsIdle());
  EXPECT_TRUE(reader.Next().has_value());
  EXPECT_TRUE(reader.IsIdle());
}

TEST(ReplyReaderTest, AReplyThatIsMovedStaysTheSame) {
  Reply first({ReplyValue::Type::kString, 0, std::string(100, 'x'), {}}, 5);
  Reply second(std::move(first));
  EXPECT_EQ(second.String(), std::string(100, 'x'));
  EXPECT_EQ(second.dropped(), 5U);
  Reply third({ReplyValue::Type::kInteger, 7, {}, {}});
  third = std::move(second);
  EXPECT_EQ(third.String(), std::string(100, 'x'));
  EXPECT_EQ(third.TakeString(), std::string(100, 'x'));
  EXPECT_EQ(Reply({ReplyValue::Type::kError, 0, "ERR", {}}).TakeString(), "");
}

TEST(ReplyReaderTest, DropsStringsWhereTheyMayBeMissed) {
  const std::string large(5000, 'x');
  const std::string bytes =
      "*3\r\n$1\r\na\r\n$5000\r\n" + large + "\r\n$1\r\nb\r\n$5000\r\n" + large + "\r\n+OK\r\n";
  for (size_t piece = 1; piece < 40; ++piece) {
    const Read read = ReadAll(bytes, {{1000, true}, {1000, true}, kSmallReply}, piece);
    ASSERT_TRUE(read.status.ok()) << read.status.error().detail;
    EXPECT_EQ(read.replies, (std::vector<std::string>{"[$a nil $b]", "nil", "+OK"})) << piece;
    EXPECT_EQ(read.dropped, (std::vector<uint64_t>{5000, 5000, 0})) << piece;
  }
}

TEST(ReplyReaderTest, RefusesWhatIsBeyondTheLimitBeforeItArrives) {
  struct Case {
    const char* bytes;
    ErrorCode code;
    const char* detail;
  };
  const Case cases[] = {
      {"*2147483647\r\n", ErrorCode::kTooLarge, "an array of 2147483647 elements"},
      {"*2\r\n*6\r\n*6\r\n", ErrorCode::kTooLarge, "an array of 6 elements"},
      {"*9\r\n:1\r\n", ErrorCode::kTooLarge, ""},
      {"*9223372036854775808\r\n", ErrorCode::kProtocol, "array length"},
      {"*-2\r\n", ErrorCode::kProtocol, "array length"},
      {"$-2\r\n", ErrorCode::kProtocol, "length of a string"},
      {"$1x\r\n", ErrorCode::kProtocol, "length of a string"},
      {":1x\r\n", ErrorCode::kProtocol, "invalid integer"},
      {":9223372036854775808\r\n", ErrorCode::kProtocol, "invalid integer"},
      {"%1\r\n+a\r\n+b\r\n", ErrorCode::kProtocol, "got \"%\" as reply type byte"},
      {"\xff\r\n", ErrorCode::kProtocol, "got \"\\xff\" as reply type byte"},
      {"\r\n", ErrorCode::kProtocol, "got \"\" as reply type byte"},
      {"+a\r\n+b\r\n", ErrorCode::kProtocol, "nobody asked for"},
  };
  for (const Case& one : cases) {
    const Read read = ReadAll(one.bytes, {{800}}, 1);
    ASSERT_FALSE(read.status.ok()) << one.bytes;
    EXPECT_EQ(read.status.error().code, one.code) << one.bytes;
    EXPECT_NE(read.status.error().detail.find(one.detail), std::string::npos)
        << one.bytes << read.status.error().detail;
  }
}

TEST(ReplyReaderTest, NamesTheBeginningOfARefusedString) {
  const std::string reply = "*2\r\n$1\r\n0\r\n*1\r\n$200000000\r\n" + std::string(500, 'n');
  const Read read = ReadAll(reply, {{uint64_t{64} << 20}}, reply.size());
  ASSERT_FALSE(read.status.ok());
  EXPECT_EQ(read.status.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(read.status.error().detail, "It announced a string of 200000000 bytes that begins with \"" +
                                            std::string(64, 'n') +
                                            "\". The limit of the reply is 67108864 bytes.");
}

TEST(ReplyReaderTest, RefusesDepthAndLinesWithoutEnd) {
  std::string deep;
  for (int i = 0; i < 8; ++i) deep += "*1\r\n";
  EXPECT_EQ(ReadAll(deep, {kSmallReply}, 3).status.error().code, ErrorCode::kProtocol);
  EXPECT_TRUE(ReadAll(deep.substr(0, 28) + ":1\r\n", {kSmallReply}, 3).status.ok());
  const Read endless = ReadAll("+" + std::string(100000, 'x'), {kLargeReply}, 1000);
  ASSERT_FALSE(endless.status.ok());
  EXPECT_TRUE(endless.replies.empty());
}

}  // namespace
}  // namespace prm::redis
