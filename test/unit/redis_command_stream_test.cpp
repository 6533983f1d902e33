#include "redis/command_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lib/cpp/follower.h"

namespace prm::redis {
namespace {

using test::Resp;

constexpr StreamLimits kSmall{100, 1000};

struct Parsed {
  std::vector<std::string> arguments;  // "-" for one that was not kept
  size_t count;
  uint64_t begin;
  uint64_t end;
  bool operator==(const Parsed& other) const {
    return arguments == other.arguments && count == other.count && begin == other.begin && end == other.end;
  }
};

// The commands of a stream that comes in pieces; an error ends them.
std::vector<Parsed> Parse(const std::string& stream, size_t piece, Status& status,
                          const StreamLimits& limits = {}) {
  Interrupts interrupts;
  CommandStream commands(1000, limits, interrupts);
  std::vector<Parsed> parsed;
  StreamCommand command;
  for (size_t at = 0; at < stream.size(); at += piece) {
    commands.Feed(Bytes(stream).substr(at, piece));
    while (true) {
      const auto next = commands.Next(command);
      if (!next.ok()) {
        status = next.error();
        return parsed;
      }
      if (!next.value()) break;
      Parsed one{{}, command.count, command.begin, command.end};
      for (const Bytes argument : command.arguments)
        one.arguments.emplace_back(argument.data() == nullptr ? "-" : argument);
      parsed.push_back(one);
    }
  }
  return parsed;
}

TEST(CommandStreamTest, CommandsWithTheirOffsets) {
  const std::string binary("\0\r\n$5\r\n\xff", 8);
  const std::string stream =
      Resp({"SELECT", "0"}) + "\n" + Resp({"SET", binary, ""}) + "\r\n" + Resp({"ping"});
  const std::vector<Parsed> expected = {{{"SELECT", "0"}, 2, 1000, 1023},
                                        {{"SET", binary, ""}, 3, 1024, 1024 + 9 + 4 + 14 + 6},
                                        {{"ping"}, 1, 1059, 1073}};
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    Status status;
    EXPECT_EQ(Parse(stream, piece, status), expected) << piece;
    EXPECT_TRUE(status.ok());
  }
}

TEST(CommandStreamTest, SkipsWhatIsTooLarge) {
  const std::string large(101, 'x');
  const std::string whole(100, 'y');
  const std::string stream = Resp({"SET", "key", large, "PXAT", "5"}) + Resp({"SET", large, whole});
  for (size_t piece = 1; piece < stream.size(); piece += 7) {
    Status status;
    const auto parsed = Parse(stream, piece, status, kSmall);
    ASSERT_EQ(parsed.size(), 2U);
    EXPECT_EQ(parsed[0].arguments, (std::vector<std::string>{"SET", "key", "-", "PXAT", "5"}));
    EXPECT_EQ(parsed[1].arguments, (std::vector<std::string>{"SET", "-", whole}));
    EXPECT_EQ(parsed[1].end, 1000 + stream.size());
  }
}

TEST(CommandStreamTest, KeepsTheBeginningOfALongCommand) {
  std::vector<std::string> arguments = {"RPUSH", "key"};
  for (int i = 0; i < 5000; ++i) arguments.push_back(std::to_string(i));
  const std::string stream = Resp(arguments) + Resp({"ping"});
  Status status;
  const auto parsed = Parse(stream, 333, status, kSmall);
  ASSERT_EQ(parsed.size(), 2U);
  EXPECT_EQ(parsed[0].count, 5002U);
  EXPECT_LT(parsed[0].arguments.size(), 30U);
  EXPECT_EQ(parsed[0].arguments[1], "key");
  EXPECT_EQ(parsed[1].end, 1000 + stream.size());
  const auto whole = Parse(stream, 333, status);
  EXPECT_EQ(whole[0].arguments, arguments);
}

TEST(CommandStreamTest, RefusesWhatIsNoCommand) {
  const std::string good = Resp({"SET", "a", "b"});
  for (const std::string& bad : {"PING\r\n",
                                 "+OK\r\n",
                                 "*0\r\n",
                                 "*-1\r\n",
                                 "*x\r\n",
                                 "*1x\r\n",
                                 "* 1\r\n",
                                 "*1\n",
                                 "*\r\n",
                                 "*99999999999\r\n",
                                 "*99999999999999999999\r\n",
                                 "*1\r\n:1\r\n",
                                 "*1\r\n$-1\r\n",
                                 "*1\r\n$x\r\n",
                                 "*1\r\n*1\r\n",
                                 "*1\r\n$1\r\nab\r\n",
                                 "*1\r\n$1\r\na\n\n",
                                 "*1\r\n$9223372036854775808\r\n",
                                 "x                                        ",
                                 "*1                                       "}) {
    for (const size_t piece : {size_t{1}, size_t{1000}}) {
      Status status;
      EXPECT_EQ(Parse(good + bad, piece, status).size(), 1U) << bad;
      ASSERT_FALSE(status.ok()) << bad;
      EXPECT_EQ(status.error().code, ErrorCode::kProtocol);
      EXPECT_NE(status.error().detail.find("byte 10"), std::string::npos) << status.error().detail;
    }
  }
}

// An announced length takes no memory.
TEST(CommandStreamTest, WaitsForAnyLength) {
  Status status;
  EXPECT_TRUE(Parse("*2000000000\r\n$3\r\nSET\r\n$9223372036854775807\r\nabc", 5, status).empty());
  EXPECT_TRUE(status.ok());
}

class Stopping : public Interrupts {
 public:
  void CheckInterrupts() override {
    if (++checks == 100) throw std::runtime_error("stop");
  }
  int checks = 0;
};

TEST(CommandStreamTest, CanBeInterrupted) {
  Stopping interrupts;
  CommandStream commands(0, {}, interrupts);
  commands.Feed(Resp(std::vector<std::string>(1000, "x")));
  StreamCommand command;
  EXPECT_THROW((void)commands.Next(command), std::runtime_error);
}

}  // namespace
}  // namespace prm::redis
