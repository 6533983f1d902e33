#include "redis/reply_guard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace prm::redis {
namespace {

// Feeds the bytes in pieces of one size; returns those that pass, and the error if there is one.
struct Passed {
  std::string bytes;
  Status status;
  std::vector<uint64_t> dropped;
};

Passed Pass(const std::string& bytes, const std::vector<ReplyLimit>& limits, size_t piece) {
  const TextGate gate;
  ReplyGuard guard(gate);
  for (const ReplyLimit& limit : limits) guard.Expect(limit);
  Passed passed;
  for (size_t at = 0; at < bytes.size() && passed.status.ok(); at += piece) {
    passed.status = guard.Take(bytes.data() + at, std::min(piece, bytes.size() - at),
                               [&](const char* part, size_t size) { passed.bytes.append(part, size); });
  }
  for (size_t i = guard.pending(); i < limits.size(); ++i) passed.dropped.push_back(guard.TakeDropped());
  return passed;
}

const std::string kReplies =
    "+OK\r\n:-7\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n$5\r\na\r\nbc\r\n*3\r\n*2\r\n$1\r\nx\r\n:1\r\n*0\r\n-ERR "
    "a\rb\r\n";

TEST(ReplyGuardTest, PassesWhatIsWithinItsLimitHoweverItIsCut) {
  const std::vector<ReplyLimit> limits(8, kSmallReply);
  for (size_t piece = 1; piece <= kReplies.size(); ++piece) {
    const Passed passed = Pass(kReplies, limits, piece);
    EXPECT_TRUE(passed.status.ok()) << passed.status.error().detail;
    EXPECT_EQ(passed.bytes, kReplies) << piece;
    EXPECT_EQ(passed.dropped, std::vector<uint64_t>(8)) << piece;
  }
}

TEST(ReplyGuardTest, DropsStringsWhereTheyMayBeMissed) {
  const std::string large(5000, 'x');
  const std::string reply =
      "*3\r\n$1\r\na\r\n$5000\r\n" + large + "\r\n$1\r\nb\r\n$5000\r\n" + large + "\r\n+OK\r\n";
  for (size_t piece = 1; piece < 40; ++piece) {
    const Passed passed = Pass(reply, {{1000, true}, {1000, true}, kSmallReply}, piece);
    ASSERT_TRUE(passed.status.ok()) << passed.status.error().detail;
    EXPECT_EQ(passed.bytes, "*3\r\n$1\r\na\r\n$-1\r\n$1\r\nb\r\n$-1\r\n+OK\r\n") << piece;
    EXPECT_EQ(passed.dropped, (std::vector<uint64_t>{5000, 5000, 0})) << piece;
  }
}

TEST(ReplyGuardTest, RefusesWhatIsBeyondTheLimitBeforeItArrives) {
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
      {"%1\r\n+a\r\n+b\r\n", ErrorCode::kProtocol, "got \"%\" as reply type byte"},
      {"\xff\r\n", ErrorCode::kProtocol, "got \"\\xff\" as reply type byte"},
      {"\r\n", ErrorCode::kProtocol, "got \"\" as reply type byte"},
      {"+a\r\n+b\r\n", ErrorCode::kProtocol, "nobody asked for"},
  };
  for (const Case& one : cases) {
    const Passed passed = Pass(one.bytes, {{800}}, 1);
    ASSERT_FALSE(passed.status.ok()) << one.bytes;
    EXPECT_EQ(passed.status.error().code, one.code) << one.bytes;
    EXPECT_NE(passed.status.error().detail.find(one.detail), std::string::npos)
        << one.bytes << passed.status.error().detail;
  }
}

TEST(ReplyGuardTest, NamesTheBeginningOfARefusedString) {
  const std::string reply = "*2\r\n$1\r\n0\r\n*1\r\n$200000000\r\n" + std::string(500, 'n');
  const Passed passed = Pass(reply, {{uint64_t{64} << 20}}, reply.size());
  ASSERT_FALSE(passed.status.ok());
  EXPECT_EQ(passed.status.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(passed.status.error().detail, "It announced a string of 200000000 bytes that begins with \"" +
                                              std::string(64, 'n') +
                                              "\". The limit of the reply is 67108864 bytes.");
}

TEST(ReplyGuardTest, RefusesDepthAndLinesWithoutEnd) {
  std::string deep;
  for (int i = 0; i < 8; ++i) deep += "*1\r\n";
  EXPECT_EQ(Pass(deep, {kSmallReply}, 3).status.error().code, ErrorCode::kProtocol);
  EXPECT_TRUE(Pass(deep.substr(0, 28) + ":1\r\n", {kSmallReply}, 3).status.ok());
  const Passed endless = Pass("+" + std::string(100000, 'x'), {kLargeReply}, 1000);
  ASSERT_FALSE(endless.status.ok());
  EXPECT_EQ(endless.bytes, "");
}

}  // namespace
}  // namespace prm::redis
