// The link of a replica: against real servers, from disk and without, and against hostile ones.
#include <gtest/gtest.h>

#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "lib/cpp/follower.h"
#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/rdb_file.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "redis/replication_link.h"

namespace prm::source {
namespace {

using redis::ReplicationPoint;
using test::Follower;
using test::HostileRedis;
using test::Resp;

class ReplicationTest : public testing::TestWithParam<std::string> {
 protected:
  long long MasterOffset() {
    const std::string info = client_.String({"INFO", "replication"});
    return std::stoll(info.substr(info.find("master_repl_offset:") + 19));
  }

  test::RedisServer server_{{"--repl-diskless-sync", GetParam(), "--repl-diskless-sync-delay", "0"}};
  test::RedisClient client_{server_.port()};
};

TEST_P(ReplicationTest, SnapshotThenStream) {
  client_.Command({"SET", "before", "snapshot"});
  Follower follower(server_.port());
  ASSERT_TRUE(follower.status.ok()) << follower.status.error().message;
  EXPECT_TRUE(follower.link->has_snapshot());
  EXPECT_NE(follower.snapshot.content.find("before"), std::string::npos);
  client_.Command({"SET", "after", std::string(100000, 'v')});
  const std::string set = Resp({"SET", "after", std::string(100000, 'v')});
  ASSERT_TRUE(follower.ReadUntil(set)) << follower.stream.substr(0, 200);
  // A SELECT comes first, or the PING of the server's timer if that fires just then; the offset counts every
  // byte.
  const std::string ping = Resp({"ping"});
  const size_t begin = follower.stream.substr(0, ping.size()) == ping ? ping.size() : 0;
  EXPECT_EQ(follower.stream.substr(begin, 23), Resp({"SELECT", "0"}));
  EXPECT_EQ(follower.link->point().offset, follower.start.offset + follower.stream.size());
  EXPECT_EQ(follower.link->point().offset, static_cast<uint64_t>(MasterOffset()));
  // As the server sees it: a replica that has no port.
  const std::string info = client_.String({"INFO", "replication"});
  EXPECT_NE(info.find("state=online"), std::string::npos) << info;
  EXPECT_NE(info.find(",port=0,"), std::string::npos) << info;
}

TEST_P(ReplicationTest, GoesOnWhereItEnded) {
  ReplicationPoint reached;
  {
    Follower follower(server_.port());
    client_.Command({"SET", "a", "1"});
    ASSERT_TRUE(follower.ReadUntil(Resp({"SET", "a", "1"})));
    reached = follower.link->point();
  }
  client_.Command({"SET", "b", "2"});
  client_.Command({"SET", "c", "3"});
  Follower again(server_.port(), reached);
  ASSERT_TRUE(again.status.ok()) << again.status.error().message << again.status.error().detail;
  EXPECT_FALSE(again.link->has_snapshot());
  EXPECT_EQ(again.start, reached);
  ASSERT_TRUE(again.ReadUntil(Resp({"SET", "c", "3"})));
  // Without a SELECT, and from the very next byte on, but for a PING.
  const std::string expected = Resp({"SET", "b", "2"}) + Resp({"SET", "c", "3"});
  EXPECT_EQ(again.stream.substr(again.stream.size() - expected.size()), expected);
  EXPECT_EQ(again.stream.find("SELECT"), std::string::npos);
}

// The link can resume at every byte of a stream.
TEST_P(ReplicationTest, GoesOnAtEveryByte) {
  Follower follower(server_.port());
  const ReplicationPoint start = follower.start;
  client_.Command({"SET", "a", "1"});
  client_.Command({"SET", "b", "2"});
  ASSERT_TRUE(follower.ReadUntil(Resp({"SET", "b", "2"})));
  for (size_t at = 0; at < follower.stream.size(); ++at) {
    Follower again(server_.port(), ReplicationPoint{start.id, start.offset + at});
    ASSERT_TRUE(again.status.ok());
    ASSERT_FALSE(again.link->has_snapshot()) << at;
    const std::string rest = follower.stream.substr(at);
    while (again.status.ok() && again.stream.size() < rest.size()) again.Read(1000, 7);
    EXPECT_EQ(again.stream.substr(0, rest.size()), rest);
  }
}

// Nobody reads that snapshot: it costs the server next to nothing.
TEST_P(ReplicationTest, TakesASnapshotWhereTheStreamIsGone) {
  client_.Command({"SET", "large", std::string(100000, 'v')});
  Follower follower(server_.port());
  ASSERT_TRUE(follower.status.ok()) << follower.status.error().message;
  EXPECT_NE(follower.snapshot.content.find("large"), std::string::npos);
  const bool has_filter = client_.String({"INFO", "server"}).find("redis_version:6") == std::string::npos;
  const ReplicationPoint reached = follower.start;
  for (const ReplicationPoint& gone : {ReplicationPoint{reached.id, reached.offset + 1000000},
                                       ReplicationPoint{std::string(40, 'a'), reached.offset}}) {
    Follower again(server_.port(), gone);
    ASSERT_TRUE(again.status.ok()) << again.status.error().message;
    EXPECT_TRUE(again.link->has_snapshot());
    EXPECT_EQ(again.start.id, reached.id);
    const bool has_large = again.snapshot.content.find("large") != std::string::npos;
    EXPECT_EQ(has_large, !has_filter);
  }
}

TEST_P(ReplicationTest, SurvivesAFailOver) {
  test::RedisServer replica({"--replicaof", "127.0.0.1 " + std::to_string(server_.port())});
  test::RedisClient at_replica(replica.port());
  ReplicationPoint reached;
  {
    Follower follower(server_.port());
    client_.Command({"SET", "a", "1"});
    ASSERT_TRUE(follower.ReadUntil(Resp({"SET", "a", "1"})));
    reached = follower.link->point();
  }
  for (int i = 0;
       i < 500 && at_replica.String({"INFO", "replication"}).find("link_status:up") == std::string::npos; ++i)
    usleep(20000);
  ASSERT_EQ(client_.Integer({"WAIT", "1", "5000"}), 1);
  at_replica.Command({"REPLICAOF", "NO", "ONE"});
  at_replica.Command({"SET", "b", "2"});
  Follower again(replica.port(), reached);
  ASSERT_TRUE(again.status.ok()) << again.status.error().message;
  EXPECT_FALSE(again.link->has_snapshot());
  EXPECT_NE(again.start.id, reached.id);
  EXPECT_EQ(again.start.offset, reached.offset);
  EXPECT_TRUE(again.ReadUntil(Resp({"SET", "b", "2"})));
}

// WAIT asks at once, and the answer counts.
TEST_P(ReplicationTest, AnswersTheQuestion) {
  Follower follower(server_.port());
  client_.Command({"SET", "a", "1"});
  ASSERT_TRUE(follower.ReadUntil(Resp({"SET", "a", "1"})));
  EXPECT_FALSE(follower.link->wants_acknowledgement());
  client_.Command({"SET", "b", "1"});
  test::RedisClient other(server_.port());
  std::thread answering([&] {
    for (int i = 0; i < 500 && !follower.link->wants_acknowledgement(); ++i) follower.Read(20, 5);
    EXPECT_TRUE(follower.link->wants_acknowledgement());
    follower.link->Acknowledge(follower.link->point().offset);
    follower.Read(20);
  });
  EXPECT_EQ(client_.Integer({"WAIT", "1", "8000"}), 1);
  answering.join();
  EXPECT_FALSE(follower.link->wants_acknowledgement());
}

TEST_P(ReplicationTest, ReturnsWithoutBytes) {
  Follower follower(server_.port());
  client_.Command({"SET", "a", "1"});
  ASSERT_TRUE(follower.ReadUntil("SELECT"));
  follower.Read(200);
  const auto start = std::chrono::steady_clock::now();
  const size_t before = follower.stream.size();
  follower.Read(20);
  const auto passed = std::chrono::steady_clock::now() - start;
  EXPECT_TRUE(follower.status.ok());
  if (follower.stream.size() == before) EXPECT_GE(passed, std::chrono::milliseconds(19));
  EXPECT_LT(passed, std::chrono::seconds(2));
}

TEST_P(ReplicationTest, NoticesSilence) {
  Follower follower(server_.port(), std::nullopt, 300);
  ASSERT_TRUE(follower.status.ok());
  server_.Pause();
  for (int i = 0; i < 100 && follower.status.ok(); ++i) follower.Read(20);
  server_.Resume();
  ASSERT_FALSE(follower.status.ok());
  EXPECT_EQ(follower.status.error().code, ErrorCode::kTimeout);
}

INSTANTIATE_TEST_SUITE_P(FromDisk, ReplicationTest, testing::Values("no"));
INSTANTIATE_TEST_SUITE_P(Diskless, ReplicationTest, testing::Values("yes"));

const std::string kId(40, 'a');

// Answers PSYNC with these bytes and everything else with OK.
void Serve(const std::string& bytes, const std::optional<ReplicationPoint>& from,
           const std::function<void(Follower&)>& check) {
  HostileRedis server([&](const HostileRedis::Arguments& arguments) {
    if (arguments.at(0) == "PSYNC") return HostileRedis::Answer{bytes};
    return HostileRedis::Answer{arguments.at(1) == "ACK" ? "" : "+OK\r\n"};
  });
  Follower follower(server.port(), from);
  check(follower);
}

// What the link says of itself, and nothing else.
TEST(ReplicationErrors, Introduction) {
  using Commands = std::vector<HostileRedis::Arguments>;
  const Commands always = {{"CLIENT", "SETNAME", "pg_redis_migrate"},
                           {"REPLCONF", "listening-port", "0"},
                           {"REPLCONF", "capa", "eof", "capa", "psync2"},
                           {"REPLCONF", "version", "9.0.0"}};
  for (const bool goes_on : {false, true}) {
    for (const bool is_old : {false, true}) {
      Commands asked;
      HostileRedis server([&](const HostileRedis::Arguments& arguments) -> HostileRedis::Answer {
        if (arguments.at(0) == "PSYNC" || arguments.at(1) != "ACK") asked.push_back(arguments);
        if (arguments.at(0) == "PSYNC") return {"+CONTINUE " + kId + "\r\n"};
        if (arguments.at(1) == "ACK") return {""};
        const bool is_known = arguments.at(1) == "listening-port" || arguments.at(1) == "capa";
        return {is_old && !is_known ? "-ERR Unrecognized REPLCONF option: x\r\n" : "+OK\r\n"};
      });
      const Follower follower(server.port(),
                              goes_on ? std::optional(ReplicationPoint{kId, 17}) : std::nullopt);
      Commands expected = always;
      if (goes_on) expected.push_back({"REPLCONF", "rdb-filter-only", ""});
      expected.push_back(goes_on ? HostileRedis::Arguments{"PSYNC", kId, "18"}
                                 : HostileRedis::Arguments{"PSYNC", "?", "-1"});
      EXPECT_EQ(asked, expected);
      EXPECT_EQ(follower.status.ok(), goes_on);
    }
  }
}

TEST(ReplicationErrors, AnswersToPartialSync) {
  const ReplicationPoint from{kId, 17};
  const std::string other(40, 'b');
  for (const std::string& good :
       {"\n\n+CONTINUE\r\n" + Resp({"PING"}), "+CONTINUE " + kId + "\r\n" + Resp({"PING"}),
        "+CONTINUE " + other + "\r\n" + Resp({"PING"})}) {
    Serve(good, from, [&](Follower& follower) {
      ASSERT_TRUE(follower.status.ok()) << good;
      EXPECT_EQ(follower.start.offset, 17U);
      EXPECT_EQ(follower.start.id, good.find(other) == std::string::npos ? kId : other);
      EXPECT_TRUE(follower.ReadUntil(Resp({"PING"})));
      EXPECT_EQ(follower.link->point().offset, 17 + Resp({"PING"}).size());
    });
  }
  for (const std::string& bad :
       {std::string("+CONTINUE x\r\n"), "+CONTINUE " + kId + "0\r\n", std::string("+CONTINUED\r\n"),
        std::string("+RDBCHANNELSYNC 1\r\n"), "+FULLRESYNC " + kId + " 9223372036854775808\r\n"}) {
    Serve(bad, from, [&](Follower& follower) {
      ASSERT_FALSE(follower.status.ok()) << bad;
      EXPECT_EQ(follower.status.error().code, ErrorCode::kProtocol) << bad;
    });
  }
  // Nothing was asked that could be continued.
  Serve("+CONTINUE " + kId + "\r\n", std::nullopt,
        [&](Follower& follower) { EXPECT_FALSE(follower.status.ok()); });
}

// Bytes that arrive together with the end mark are the beginning of the stream.
TEST(ReplicationErrors, StreamThatFollowsAtOnce) {
  const std::string file = test::FramedFile("REDIS0011", "");
  const std::string mark(40, 'e');
  const std::string stream = Resp({"SELECT", "3"}) + Resp({"SET", "a", "1"});
  for (const std::string& header : {"$EOF:" + mark + "\r\n", "$" + std::to_string(file.size()) + "\r\n"}) {
    const std::string end = header.find("EOF") == std::string::npos ? "" : mark;
    Serve("+FULLRESYNC " + kId + " 100\r\n" + header + file + end + stream, std::nullopt,
          [&](Follower& follower) {
            ASSERT_TRUE(follower.status.ok())
                << follower.status.error().message << follower.status.error().detail;
            EXPECT_EQ(follower.snapshot.content, file);
            ASSERT_TRUE(follower.ReadUntil(Resp({"SET", "a", "1"}), 9));
            EXPECT_EQ(follower.stream, stream);
            EXPECT_EQ(follower.link->point().offset, 100 + stream.size());
          });
  }
}

}  // namespace
}  // namespace prm::source
