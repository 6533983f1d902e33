// Dump files of a real server, and whether its stream goes on from them.
#include "stream/seed.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>

#include "lib/cpp/memory_spool.h"
#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "redis/connection.h"
#include "redis/replication_link.h"

namespace prm::stream {
namespace {

constexpr uint64_t kNoLimit = uint64_t{1} << 40;
const std::string kId(40, 'a');
const std::string kOtherId(40, 'b');

redis::ServerInfo InfoOf(const std::string& id, const std::string& id2, int64_t second, int64_t first,
                         int64_t length, const std::string& active = "1") {
  return redis::ServerInfo("master_replid:" + id + "\r\nmaster_replid2:" + id2 + "\r\nsecond_repl_offset:" +
                           std::to_string(second) + "\r\nrepl_backlog_active:" + active +
                           "\r\nrepl_backlog_first_byte_offset:" + std::to_string(first) +
                           "\r\nrepl_backlog_histlen:" + std::to_string(length) + "\r\n");
}

std::string Refusal(const redis::ServerInfo& info, uint64_t offset, const std::string& id = kId) {
  const Status status = CheckContinues(info, {{id, offset}, 0}, "here");
  return status.ok() ? "" : status.error().detail;
}

TEST(SeedTest, TheBacklogMustHaveTheNextByte) {
  const auto info = InfoOf(kId, std::string(40, '0'), -1, 101, 50);  // 101 to 150
  EXPECT_NE(Refusal(info, 99).find("begins at 101"), std::string::npos);
  EXPECT_EQ(Refusal(info, 100), "");
  EXPECT_EQ(Refusal(info, 149), "");
  EXPECT_EQ(Refusal(info, 150), "");
  EXPECT_NE(Refusal(info, 151).find("ends at 150"), std::string::npos);
}

TEST(SeedTest, AnEarlierHistoryIsThereUpToItsEnd) {
  const auto info = InfoOf(kOtherId, kId, 121, 101, 50);
  EXPECT_EQ(Refusal(info, 120), "");
  EXPECT_NE(Refusal(info, 121).find("left that history at 121"), std::string::npos);
  EXPECT_EQ(Refusal(info, 121, kOtherId), "");
  EXPECT_NE(Refusal(info, 120, std::string(40, 'c')).find("of replication id cccc"), std::string::npos);
}

TEST(SeedTest, WithoutABacklogNothingGoesOn) {
  EXPECT_NE(Refusal(InfoOf(kId, kOtherId, -1, 0, 0, "0"), 0).find("no replication backlog"),
            std::string::npos);
  EXPECT_NE(Refusal(redis::ServerInfo("master_replid:" + kId + "\r\n"), 0).find("no replication backlog"),
            std::string::npos);
}

class SeedOfServerTest : public testing::Test {
 protected:
  std::unique_ptr<redis::Connection> Connect() {
    redis::ConnectionOptions options;
    options.host = "127.0.0.1";
    options.port = server_.port();
    return std::move(redis::Connection::Open(options, waiter_).value());
  }

  test::MemorySpool Save() {
    // The snapshot for a replica is written in the background, and SAVE is refused meanwhile.
    while (client_.String({"INFO", "persistence"}).find("rdb_bgsave_in_progress:1") != std::string::npos)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    client_.Command({"SAVE"});
    test::MemorySpool file;
    std::ifstream stream(server_.directory() + "/dump.rdb", std::ios::binary);
    file.content.assign(std::istreambuf_iterator<char>(stream), {});
    return file;
  }

  using MemorySpool = test::MemorySpool;
  test::RedisServer server_;
  test::RedisClient client_{server_.port()};
  test::PollWaiter waiter_;
};

TEST_F(SeedOfServerTest, ReadsThePlaceOfTheFile) {
  client_.Command({"SET", "k", "1"});
  MemorySpool without = Save();
  const auto refused = ReadSeed(without);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);

  const auto replica = Connect();
  auto link = redis::ReplicationLink::Open(*replica, std::nullopt);
  ASSERT_TRUE(link.ok());
  client_.Command({"SELECT", "3"});
  client_.Command({"INCR", "n"});
  MemorySpool file = Save();
  client_.Command({"INCR", "n"});
  const auto seed = ReadSeed(file);
  ASSERT_TRUE(seed.ok()) << seed.error().message;
  EXPECT_EQ(seed.value().point.id, link.value()->point().id);
  EXPECT_EQ(seed.value().db, 3);

  // The server says so, and does so.
  const auto connection = Connect();
  const auto info = redis::FetchInfo(*connection);
  EXPECT_TRUE(CheckContinues(info.value(), seed.value(), connection->address()).ok());
  const auto going_on = redis::ReplicationLink::Open(*connection, seed.value().point);
  ASSERT_TRUE(going_on.ok());
  EXPECT_FALSE(going_on.value()->has_snapshot());
}

TEST_F(SeedOfServerTest, CopiesAWholeFileOnly) {
  client_.Command(
      {"EVAL", "for i = 1, 1000 do redis.call('SET', 'k' .. i, string.rep('x', 5000) .. i) end", "0"});
  MemorySpool file = Save();
  MemorySpool copy;
  ASSERT_TRUE(CopyDump(file, copy, kNoLimit).ok());
  EXPECT_EQ(copy.content, file.content);
  const auto refused = [](MemorySpool& from, uint64_t most) {
    MemorySpool to;
    const Status status = CopyDump(from, to, most);
    return status.ok() ? std::nullopt : std::optional(status.error().code);
  };
  EXPECT_EQ(refused(file, file.content.size() - 1), ErrorCode::kTooLarge);
  MemorySpool damaged = file;
  damaged.content[file.content.size() / 2] ^= 1;
  EXPECT_EQ(refused(damaged, kNoLimit), ErrorCode::kCorruptData);
  for (const size_t size : {size_t{0}, size_t{5}, file.content.size() / 2, file.content.size() - 1}) {
    MemorySpool cut;
    cut.content = file.content.substr(0, size);
    EXPECT_EQ(refused(cut, kNoLimit), ErrorCode::kCorruptData) << size;
  }
  MemorySpool longer = file;
  longer.content += "x";
  EXPECT_EQ(refused(longer, kNoLimit), ErrorCode::kCorruptData);
}

}  // namespace
}  // namespace prm::stream
