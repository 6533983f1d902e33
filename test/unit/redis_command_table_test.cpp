// The table of commands against what a real server knows of its own.
#include "redis/command_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"

namespace prm::redis {
namespace {

std::vector<std::string> Words(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

KeysFound Find(const std::vector<std::string>& command, std::set<std::string>& keys) {
  std::vector<size_t> positions;
  const std::vector<Bytes> arguments(command.begin(), command.end());
  const KeysFound found = FindWrittenKeys(arguments, arguments.size(), positions);
  keys.clear();
  for (const size_t position : positions) keys.insert(command.at(position));
  EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
  return found;
}

class CommandTableTest : public testing::Test {
 protected:
  test::RedisServer server_;
  test::RedisClient client_{server_.port()};
};

// The table knows the keys of every command of this server that writes.
TEST_F(CommandTableTest, HasEveryWriteCommand) {
  const test::Reply commands = client_.Command({"COMMAND"});
  int writes = 0;
  for (size_t i = 0; i < commands->elements; ++i) {
    const redisReply* const command = commands->element[i];
    const std::string name = test::Text(command->element[0]);
    bool is_write = false;
    for (size_t j = 0; j < command->element[2]->elements; ++j)
      is_write = is_write || test::Text(command->element[2]->element[j]) == "write";
    if (!is_write) continue;
    ++writes;
    std::set<std::string> keys;
    if (name == "xreadgroup") continue;  // comes as XCLAIM and XGROUP
    EXPECT_NE(Find({name}, keys), KeysFound::kUnknown) << name;
  }
  EXPECT_GT(writes, 90);
}

// The server tells of each key of a command what happens to it. To be compared are those that it changes.
TEST_F(CommandTableTest, FindsWhatTheServerFinds) {
  const char* const kCommands[] = {
      "APPEND k v",
      "bitfield k SET u8 0 7",
      "BITOP AND dest a b c",
      "BLMOVE a b LEFT RIGHT 0",
      "BLMPOP 0 2 a b LEFT",
      "BLPOP a b 0",
      "BRPOPLPUSH a b 0",
      "BZMPOP 0 1 a MIN",
      "BZPOPMIN a b c 0",
      "COPY a b DB 2 REPLACE",
      "DEL a b c",
      "EXPIRE k 5",
      "GEOADD k 1 2 m",
      "GEORADIUS k 1 2 3 km",
      "GEORADIUS k 1 2 3 km COUNT 5 STORE dest",

      "GEORADIUSBYMEMBER k store 3 km ASC STOREDIST dest",
      "GEOSEARCHSTORE dest k FROMLONLAT 1 2 BYRADIUS 3 km",
      "GETEX k PERSIST",
      "HINCRBY k f 1",
      "LINSERT k BEFORE a b",
      "LMOVE a b LEFT LEFT",
      "LMPOP 3 a b c LEFT COUNT 2",
      "MIGRATE h 6379 k 0 100",
      "MOVE k 3",
      "MSET a 1 b 2 c 3",
      "MSETNX a 1",
      "PFADD k a",
      "PFMERGE dest a b",
      "RENAME a b",
      "RENAMENX a b",
      "RESTORE k 0 payload",
      "RPOPLPUSH a b",
      "SDIFFSTORE dest a b",
      "SET k v EX 1",
      "SMOVE a b m",
      "SORT k",
      "SORT k BY nosort GET store STORE dest",
      "SORT k LIMIT 0 store ALPHA STORE dest",
      "SORT k STORE one STORE dest",
      "SUNIONSTORE dest a",
      "UNLINK a",
      "XACK k g 1-1",
      "XADD k * f v",
      "XCLAIM k g c 0 1-1",
      "XGROUP CREATE k g 0",
      "XGROUP SETID k g 0",
      "XSETID k 1-1",
      "ZADD k 1 m",
      "ZDIFFSTORE dest 2 a b",
      "ZINTERSTORE dest 1 a",
      "ZMPOP 2 a b MIN",
      "ZRANGESTORE dest k 0 -1",
      "ZUNIONSTORE dest 2 a b WEIGHTS 1 2",
      "XAUTOCLAIM k g c 0 0",
      "RESTORE-ASKING k 0 payload",
      "PFDEBUG GETREG k",
  };
  for (const std::string& line : kCommands) {
    const std::vector<std::string> command = Words(line);
    std::vector<std::string> ask = {"COMMAND", "GETKEYSANDFLAGS"};
    ask.insert(ask.end(), command.begin(), command.end());
    const test::Reply reply = client_.Command(ask);
    std::set<std::string> expected;
    for (size_t i = 0; i < reply->elements; ++i) {
      const redisReply* const flags = reply->element[i]->element[1];
      for (size_t j = 0; j < flags->elements; ++j)
        if (test::Text(flags->element[j]) != "RO" && test::Text(flags->element[j]).size() == 2)
          expected.insert(test::Text(reply->element[i]->element[0]));
    }
    std::set<std::string> found;
    EXPECT_EQ(Find(command, found), KeysFound::kAll) << line;
    EXPECT_EQ(found, expected) << line;
  }
}

TEST(CommandTable, OfLaterServers) {
  std::set<std::string> keys;
  EXPECT_EQ(Find(Words("MSETEX 2 a 1 b 2 XX PXAT 5"), keys), KeysFound::kAll);
  EXPECT_EQ(keys, (std::set<std::string>{"a", "b"}));
  EXPECT_EQ(Find(Words("HSETEX k FNX PXAT 5 FIELDS 1 f v"), keys), KeysFound::kAll);
  EXPECT_EQ(keys, std::set<std::string>{"k"});
  EXPECT_EQ(Find(Words("PFCOUNT a"), keys), KeysFound::kAll);
  EXPECT_EQ(keys, std::set<std::string>{"a"});
  for (const char* none :
       {"PING", "publish c m", "MULTI", "EXEC", "SELECT 1", "FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 1",
        "FUNCTION LOAD x", "SCRIPT FLUSH", "REPLCONF GETACK *", "BLESS SET k NO-EVICT"}) {
    EXPECT_EQ(Find(Words(none), keys), KeysFound::kAll) << none;
    EXPECT_TRUE(keys.empty()) << none;
  }
  for (const char* hidden : {"EVAL script 1 k", "EVALSHA sha 0", "FCALL f 1 k", "TRIMSLOTS RANGES 1 2 3"})
    EXPECT_EQ(Find(Words(hidden), keys), KeysFound::kHidden) << hidden;
  for (const char* unknown : {"JSON.SET k $ 1", "NOSUCH", "se", "sett", "\xff"})
    EXPECT_EQ(Find(Words(unknown), keys), KeysFound::kUnknown) << unknown;
  for (const char* invalid :
       {"SET", "DEL", "RENAME a", "MSET", "BITOP AND", "LMPOP", "LMPOP x a", "LMPOP 0 a", "LMPOP 2 a",
        "MSETEX 99999999999999999999 a", "BLPOP 0", "MIGRATE h p", "XGROUP CREATE", "COPY a", "LMPOP -1 a"}) {
    EXPECT_EQ(Find(Words(invalid), keys), KeysFound::kInvalid) << invalid;
  }
  EXPECT_EQ(Find({"MIGRATE", "h", "6379", "", "0", "100", "REPLACE", "KEYS", "a", "b"}, keys),
            KeysFound::kAll);
  EXPECT_EQ(keys, (std::set<std::string>{"a", "b"}));
}

TEST_F(CommandTableTest, AsksTheServer) {
  test::PollWaiter waiter;
  ConnectionOptions options;
  options.host = "127.0.0.1";
  options.port = server_.port();
  auto connection = Connection::Open(options, waiter);
  ASSERT_TRUE(connection.ok());
  const auto keys =
      FetchKeys(*connection.value(), {"XREADGROUP", "GROUP", "g", "c", "STREAMS", "a", "b", "1", "2"});
  ASSERT_TRUE(keys.ok());
  EXPECT_EQ(keys.value(), (std::vector<std::string>{"a", "b"}));
  const auto none = FetchKeys(*connection.value(), {"PUBLISH", "c", "m"});
  ASSERT_TRUE(none.ok()) << none.error().detail;
  EXPECT_TRUE(none.value().empty());
  const auto unknown = FetchKeys(*connection.value(), {"NOSUCH", "a"});
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::kServerError);
}

}  // namespace
}  // namespace prm::redis
