// Feeds of changed keys: what real servers tell by tracking and by notifications, when that is not all, and
// what hostile ones send.
#include "redis/change_feed.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"

namespace prm::redis {
namespace {

using test::HostileRedis;
using Names = std::set<std::string>;

class Feed {
 public:
  // commands_port: where the questions go, if not to the same.
  explicit Feed(int port, bool may_track = true, const std::string& user = "", int commands_port = 0) {
    for (auto* connection : {&subscriber_, &commands_}) {
      ConnectionOptions to;
      to.host = "127.0.0.1";
      to.port = connection == &commands_ && commands_port != 0 ? commands_port : port;
      to.username = user;
      to.password = user.empty() ? "" : "secret";
      to.command_timeout_ms = 1000;
      auto connected = Connection::Open(to, waiter_);
      if (!connected.ok()) {
        status = connected.error();
        return;
      }
      *connection = std::move(connected.value());
    }
    auto opened = ChangeFeed::Open(*subscriber_, *commands_, may_track);
    if (opened.ok()) {
      feed = std::move(opened.value());
    } else {
      status = opened.error();
    }
  }

  // All that changed before the call, as "db/key", where the db is told.
  Names Told() {
    Names names;
    for (int question = 0; question < 2 && status.ok(); ++question) {
      const uint64_t before = feed->pongs();
      feed->Ping();
      while (status.ok() && feed->pongs() == before) {
        std::vector<ChangeFeed::Change> changes;
        status = feed->Read(1000, changes);
        for (const ChangeFeed::Change& change : changes)
          names.insert((change.db ? std::to_string(*change.db) + "/" : "") + change.key);
      }
    }
    return names;
  }

  // False: the server is busy, or it failed.
  bool Check() {
    const Result<bool> checked = feed->Check();
    if (!checked.ok()) status = checked.error();
    return checked.ok() && checked.value();
  }

  std::string Problem() const {
    return status.ok() ? ""
                       : status.error().message + "|" + status.error().detail + "|" + status.error().hint;
  }

  Status status;
  std::unique_ptr<ChangeFeed> feed;

 private:
  test::PollWaiter waiter_;
  std::unique_ptr<Connection> subscriber_, commands_;
};

class ChangeFeedTest : public testing::Test {
 protected:
  void Lines(const std::vector<std::vector<std::string>>& commands) {
    for (const auto& command : commands) client_.Command(command);
  }

  test::RedisServer server_;
  test::RedisClient client_{server_.port()};
};

TEST_F(ChangeFeedTest, TrackingTellsEveryChangedKey) {
  Feed feed(server_.port());
  ASSERT_TRUE(feed.status.ok()) << feed.Problem();
  EXPECT_EQ(feed.feed->kind(), ChangeFeed::Kind::kTracking);
  EXPECT_EQ(feed.feed->doubt(), "");
  EXPECT_EQ(feed.Told(), Names());
  Lines({{"SET", "a", "1"}, {"GET", "a"}, {"DEL", "none"}, {"HSET", std::string("\0\r\n\xff", 4), "f", "v"}});
  EXPECT_EQ(feed.Told(), (Names{"a", std::string("\0\r\n\xff", 4)}));
  Lines({{"MULTI"}, {"INCR", "a"}, {"LPUSH", "l", "x"}, {"EXEC"}});
  EXPECT_EQ(feed.Told(), (Names{"a", "l"}));
  Lines({{"EVAL", "redis.call('SET', 'e', '1'); redis.call('RENAME', 'l', 'm')", "0"},
         {"PEXPIRE", "a", "300"}});
  EXPECT_EQ(feed.Told().count("m"), 1u);
  usleep(400000);
  Lines({{"GET", "a"}});  // which has expired
  EXPECT_EQ(feed.Told().count("a"), 1u);
  Lines({{"SELECT", "3"}, {"SET", "elsewhere", "1"}});
  EXPECT_EQ(feed.Told(), Names{"elsewhere"}) << "without its database";
  EXPECT_TRUE(feed.feed->Check().ok());
}

TEST_F(ChangeFeedTest, AManyTimesChangedKeyIsThereAfterTwoAnswers) {
  Feed feed(server_.port());
  for (int i = 0; i < 300; ++i) {
    const std::string key = "k" + std::to_string(i);
    client_.Command({"SET", key, "1"});
    EXPECT_EQ(feed.Told(), Names{key});
  }
}

TEST_F(ChangeFeedTest, NotificationsTellTheDatabase) {
  Lines({{"CONFIG", "SET", "notify-keyspace-events", "AE"}});
  Feed feed(server_.port(), false);
  ASSERT_TRUE(feed.status.ok()) << feed.Problem();
  EXPECT_EQ(feed.feed->kind(), ChangeFeed::Kind::kNotifications);
  EXPECT_EQ(feed.feed->doubt(), "");
  Lines({{"SET", "a__:b", "1"}, {"SELECT", "12"}, {"HSET", "h", "f", "v"}, {"XADD", "x", "*", "f", "v"}});
  EXPECT_EQ(feed.Told(), (Names{"0/a__:b", "12/h", "12/x"}));
  EXPECT_TRUE(feed.feed->Check().ok());
  Lines({{"CONFIG", "SET", "notify-keyspace-events", "A"}});
  EXPECT_EQ(feed.feed->Check().error().code, ErrorCode::kUnavailable);
}

TEST_F(ChangeFeedTest, NotificationsByKeyspaceWillDo) {
  Lines({{"CONFIG", "SET", "notify-keyspace-events", "KA"}});
  Feed feed(server_.port(), false);
  ASSERT_TRUE(feed.status.ok()) << feed.Problem();
  Lines({{"SET", "a__:b", "1"}, {"SELECT", "12"}, {"LPUSH", std::string("\0 l", 3), "v"}});
  EXPECT_EQ(feed.Told(), (Names{"0/a__:b", std::string("12/\0 l", 6)}));
}

TEST_F(ChangeFeedTest, WhatIsMissingIsNamed) {
  Lines({{"CONFIG", "SET", "notify-keyspace-events", "Kg$l"}});
  const Feed feed(server_.port(), false);
  EXPECT_EQ(feed.status.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(feed.Problem().find("lacks A."), std::string::npos) << feed.Problem();
  EXPECT_NE(feed.Problem().find("CONFIG SET notify-keyspace-events AKE"), std::string::npos)
      << feed.Problem();
  Lines({{"CONFIG", "SET", "notify-keyspace-events", ""}});
  EXPECT_NE(Feed(server_.port(), false).Problem().find("lacks AE."), std::string::npos);
}

TEST_F(ChangeFeedTest, FlushAndSwapEndTheFeed) {
  for (const char* flush : {"FLUSHALL", "FLUSHDB"}) {
    Feed feed(server_.port());
    Lines({{flush}});
    feed.Told();
    EXPECT_EQ(feed.status.error().code, ErrorCode::kUnavailable) << flush;
    EXPECT_TRUE(feed.feed->is_flushed()) << flush;
  }
  Lines({{"CONFIG", "SET", "notify-keyspace-events", "AE"}});
  const std::vector<std::vector<std::string>> commands = {{"SWAPDB", "0", "1"},
                                                          {"FLUSHALL"},
                                                          {"EVAL", "redis.call('FLUSHDB')", "0"},
                                                          {"REPLICAOF", "NO", "ONE"},
                                                          {"CONFIG", "RESETSTAT"}};
  for (const auto& command : commands) {
    Feed feed(server_.port(), false);
    for (int i = 0; i < 20; ++i) client_.Command({"PING"});
    ASSERT_TRUE(feed.feed->Check().ok());
    client_.Command(command);
    feed.Told();
    EXPECT_TRUE(feed.status.ok()) << feed.Problem();
    const Result<bool> checked = feed.feed->Check();
    ASSERT_FALSE(checked.ok()) << command[0];
    EXPECT_EQ(checked.error().code, ErrorCode::kUnavailable) << command[0];
    const bool has_replaced_all = command[0] == "REPLICAOF" || command[0] == "CONFIG";
    EXPECT_EQ(feed.feed->is_flushed(), !has_replaced_all) << command[0];
  }
}

// More is executed in one go than ever before: what was counted is higher than before all the same.
TEST_F(ChangeFeedTest, ResetStatisticsHideNothing) {
  Feed feed(server_.port());
  Lines({{"SWAPDB", "0", "1"}, {"CONFIG", "RESETSTAT"}});
  for (int i = 0; i < 200; ++i) client_.Command({"SET", "a", "1"});
  feed.Told();
  EXPECT_FALSE(feed.Check());
  EXPECT_EQ(feed.status.error().code, ErrorCode::kUnavailable);
}

TEST_F(ChangeFeedTest, ABusyServerIsAskedAgain) {
  Lines({{"CONFIG", "SET", "lua-time-limit", "50"}, {"CONFIG", "SET", "notify-keyspace-events", "AE"}});
  for (const bool may_track : {true, false}) {
    Feed feed(server_.port(), may_track);
    std::thread script([&] {
      test::RedisClient client(server_.port());
      EXPECT_THROW(client.Command({"EVAL", "while true do end", "0"}), std::runtime_error);
    });
    std::vector<ChangeFeed::Change> changes;
    while (feed.status.ok() && feed.feed->refusals() == 0) {
      feed.feed->Ping();
      feed.status = feed.feed->Read(100, changes);
    }
    EXPECT_FALSE(feed.Check());
    EXPECT_TRUE(feed.status.ok()) << feed.Problem();
    Lines({{"SCRIPT", "KILL"}});
    script.join();
    Lines({{"SET", "a", "1"}});
    EXPECT_EQ(feed.Told(), Names{may_track ? "a" : "0/a"});
    EXPECT_TRUE(feed.Check()) << feed.Problem();
  }
}

TEST_F(ChangeFeedTest, ARightThatIsTakenEndsTheFeed) {
  Lines({{"CONFIG", "SET", "notify-keyspace-events", "AE"},
         {"ACL", "SETUSER", "n", "on", ">secret", "-@all", "+info", "+ping", "+config|get", "+psubscribe",
          "allchannels"}});
  Feed feed(server_.port(), false, "n");
  EXPECT_TRUE(feed.Check()) << feed.Problem();
  client_.Command({"ACL", "SETUSER", "n", "-config|get"});
  EXPECT_FALSE(feed.Check());
  EXPECT_EQ(feed.status.error().code, ErrorCode::kUnavailable);
}

TEST_F(ChangeFeedTest, ALostConnectionIsAnError) {
  for (const bool is_subscriber : {true, false}) {
    Feed feed(server_.port());
    ASSERT_TRUE(feed.status.ok()) << feed.Problem();
    client_.Command({"CLIENT", "KILL", "TYPE", is_subscriber ? "pubsub" : "normal"});
    feed.Told();
    if (feed.status.ok()) feed.Check();
    ASSERT_FALSE(feed.status.ok());
    EXPECT_EQ(feed.status.error().code, ErrorCode::kConnectionFailure) << feed.Problem();
  }
}

TEST_F(ChangeFeedTest, RightsDecideWhichFeedItIs) {
  Lines({{"CONFIG", "SET", "notify-keyspace-events", "AKE"},
         {"ACL", "SETUSER", "t", "on", ">secret", "-@all", "+info", "+ping", "+client|id", "+client|tracking",
          "+subscribe", "resetchannels", "&__redis__:invalidate"},
         {"ACL", "SETUSER", "n", "on", ">secret", "-@all", "+info", "+ping", "+config|get", "+psubscribe",
          "resetchannels", "&__keyevent@*__:*"},
         {"ACL", "SETUSER", "d", "on", ">secret", "-@all", "+info", "+ping", "+psubscribe", "resetchannels",
          "&__keyevent@*__:*", "&__keyspace@*__:*"},
         {"ACL", "SETUSER", "x", "on", ">secret", "-@all", "+info", "+ping", "allchannels"},
         {"ACL", "SETUSER", "i", "on", ">secret", "-@all", "+ping", "allchannels"}});
  Feed tracking(server_.port(), true, "t");
  Feed notifications(server_.port(), true, "n");
  Feed doubtful(server_.port(), true, "d");
  for (Feed* feed : {&tracking, &notifications, &doubtful}) {
    ASSERT_TRUE(feed->status.ok()) << feed->Problem();
    EXPECT_EQ(feed->Told(), Names());
    EXPECT_TRUE(feed->feed->Check().ok());
  }
  client_.Command({"SET", "a", "1"});
  EXPECT_EQ(tracking.Told(), Names{"a"});
  EXPECT_EQ(notifications.Told(), Names{"0/a"});
  EXPECT_EQ(doubtful.Told(), Names{"0/a"});
  EXPECT_EQ(tracking.feed->doubt() + notifications.feed->doubt(), "");
  EXPECT_NE(doubtful.feed->doubt().find("CONFIG GET is refused"), std::string::npos);
  EXPECT_EQ(Feed(server_.port(), true, "x").status.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(Feed(server_.port(), true, "i").status.error().code, ErrorCode::kPermissionDenied);
}

TEST_F(ChangeFeedTest, EveryDoubtIsTold) {
  Lines({{"ACL", "SETUSER", "d", "on", ">secret", "-@all", "+info", "+ping", "+psubscribe", "allchannels"}});
  HostileRedis hiding(
      [](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (arguments.back() == "commandstats") return HostileRedis::Answer{"$0\r\n\r\n"};
        return std::nullopt;
      },
      server_.port());
  const Feed tracking(hiding.port());
  const Feed notifications(hiding.port(), true, "d");
  ASSERT_TRUE(tracking.status.ok()) << tracking.Problem();
  ASSERT_TRUE(notifications.status.ok()) << notifications.Problem();
  const std::string hidden = "INFO commandstats does not show whether ";
  EXPECT_EQ(tracking.feed->doubt(), hidden + "SWAPDB, REPLICAOF or FAILOVER was called");
  EXPECT_EQ(notifications.feed->doubt(),
            "CONFIG GET is refused: nothing shows whether the server sends every notification; " + hidden +
                "FLUSHALL, FLUSHDB, SWAPDB, REPLICAOF or FAILOVER was called");
}

// Where the server does not show its commands, keys that are gone untold are.
TEST_F(ChangeFeedTest, MoreKeysThatGoThanAreToldEndTheFeed) {
  HostileRedis hiding(
      [](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
        if (arguments.back() == "commandstats") return HostileRedis::Answer{"$0\r\n\r\n"};
        return std::nullopt;
      },
      server_.port());
  Lines({{"CONFIG", "SET", "notify-keyspace-events", "AE"}});
  const std::vector<std::vector<std::string>> commands = {
      {"FLUSHALL"}, {"FLUSHDB"}, {"EVAL", "redis.call('FLUSHALL')", "0"}, {"SWAPDB", "0", "1"}};
  for (const bool may_track : {false, true}) {
    for (const auto& command : commands) {
      const bool is_swap = command[0] == "SWAPDB";
      if (may_track && !is_swap) continue;  // tracking tells of the others
      Lines({{"FLUSHALL"}, {"EVAL", "for i = 1, 300 do redis.call('SET', 'k' .. i, i) end", "0"}});
      Feed feed(server_.port(), may_track, "", hiding.port());
      ASSERT_TRUE(feed.status.ok()) << feed.Problem();
      const auto goes_on = [&] {
        const Result<bool> counted = feed.feed->CountKeys();
        EXPECT_TRUE(counted.ok() && counted.value());
        feed.Told();
        return feed.Check();
      };
      EXPECT_TRUE(goes_on()) << feed.Problem();
      client_.Command({"EVAL", "for i = 1, 50 do redis.call('DEL', 'k' .. i) end", "0"});
      EXPECT_TRUE(goes_on()) << "keys that were told: " << feed.Problem();
      client_.Command({"PEXPIRE", "k51", "1"});
      usleep(2000);
      client_.Command({"GET", "k51"});
      EXPECT_TRUE(goes_on()) << feed.Problem();
      Lines({{"SET", "k1", "1"}, command});
      EXPECT_FALSE(goes_on()) << command[0];
      EXPECT_EQ(feed.status.error().code, ErrorCode::kUnavailable) << feed.Problem();
      EXPECT_FALSE(feed.feed->is_flushed()) << "nobody has seen the command";
    }
  }
}

TEST_F(ChangeFeedTest, AReplicaIsRefused) {
  const test::RedisServer replica({"--replicaof", "127.0.0.1 " + std::to_string(server_.port())});
  EXPECT_EQ(Feed(replica.port()).status.error().code, ErrorCode::kUnavailable);
}

// After the subscription: garbage of every kind, and messages that are almost right.
TEST_F(ChangeFeedTest, HostileMessagesAreErrors) {
  const std::string message = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
  std::vector<HostileRedis::Answer> answers = test::WrongAnswers();
  for (const std::string& rest :
       {message + "$1\r\na\r\n", message + ":1\r\n", message + "*1\r\n:7\r\n",
        message + "*1\r\n*1\r\n$1\r\na\r\n", message + "*2147483647\r\n", message + "*1\r\n$99999999999\r\n",
        message + "$-1\r\n", std::string("*3\r\n$7\r\nmessage\r\n$5\r\nother\r\n$1\r\na\r\n"),
        std::string("*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$12\r\n__keyevent@_\r\n$1\r\na\r\n"),
        std::string(
            "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$29\r\n__keyevent@99999999999999__:set\r\n$1\r\na\r\n"),
        std::string("*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$17\r\n__keyevent@-1__:x\r\n$1\r\na\r\n"),
        std::string("-ERR something\r\n"), std::string("*1\r\n") + std::string(100000, 'x')})
    answers.push_back({rest});
  const std::string confirmed = "*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n";
  for (const HostileRedis::Answer& answer : answers) {
    std::atomic<bool> is_subscribed = false;
    HostileRedis hostile(
        [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
          const std::string name = HostileRedis::NameOf(arguments);
          if (name == "SUBSCRIBE") is_subscribed = true;
          if (name == "SUBSCRIBE") return HostileRedis::Answer{confirmed + answer.bytes, answer.closes};
          if (name == "CLIENT TRACKING") return HostileRedis::Answer{"+OK\r\n"};
          if (name == "PING" && is_subscribed) return HostileRedis::Answer{""};
          return std::nullopt;
        },
        server_.port());
    Feed feed(hostile.port());
    if (feed.status.ok()) feed.Told();  // else it came with the confirmation
    EXPECT_FALSE(feed.status.ok()) << answer.bytes;
  }
}

// No command gets an answer that suits it: an error, or another feed.
TEST_F(ChangeFeedTest, HostileAnswersAreErrors) {
  for (const char* wrong :
       {"INFO", "CLIENT ID", "CLIENT TRACKING", "SUBSCRIBE", "PSUBSCRIBE", "CONFIG GET", "PING"}) {
    for (const HostileRedis::Answer& answer : test::WrongAnswers()) {
      HostileRedis hostile(
          [&](const HostileRedis::Arguments& arguments) -> std::optional<HostileRedis::Answer> {
            if (HostileRedis::NameOf(arguments) == wrong) return answer;
            return std::nullopt;
          },
          server_.port());
      for (const bool may_track : {true, false}) {
        Feed feed(hostile.port(), may_track);
        if (feed.status.ok() && std::string(wrong) == "PING") feed.Told();
        if (feed.status.ok()) feed.Check();
        for (const char c : feed.Problem()) EXPECT_GE(static_cast<unsigned char>(c), ' ') << feed.Problem();
      }
    }
  }
}

}  // namespace
}  // namespace prm::redis
