// Streams and what they change: built by hand, from real servers and captured from servers.
#include "stream/stream_changes.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/position_key.h"
#include "lib/cpp/follower.h"
#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"

namespace prm::stream {
namespace {

using namespace source;

using test::Resp;

constexpr StreamPosition kStart{1000, 0};
constexpr TimeSpan kReceived = {1799999999999, 1800000000000};

// "set 0/key=value@expiry", "delete 0/key", "changed 0/key", and how: "by 5", "and text", "=text", "@5" or
// "persists"; "flush 0", "swap 0 1", "unknown NAME a b".
std::string TextOf(const StreamChange& change) {
  const std::string db = std::to_string(change.entry.db);
  const std::string name = db + "/" + change.entry.key;
  EXPECT_EQ(change.entry.changed.after_ms, kReceived.after_ms);
  EXPECT_EQ(change.entry.changed.until_ms, kReceived.until_ms);
  EXPECT_EQ(change.entry.state, EntryState::kRead);
  std::string text;
  switch (change.kind) {
    case ChangeKind::kSet:
      text = "set " + name + "=" + change.entry.payload;
      if (change.entry.expires_at_ms) text += "@" + std::to_string(*change.entry.expires_at_ms);
      return text;
    case ChangeKind::kDelete:
      return "delete " + name;
    case ChangeKind::kChanged:
      switch (change.edit) {
        case Edit::kNone:
          return "changed " + name;
        case Edit::kAdd:
          return "changed " + name + " by " + std::to_string(change.amount);
        case Edit::kAppend:
          return "changed " + name + " and " + change.entry.payload;
        case Edit::kReplace:
          return "changed " + name + " =" + change.entry.payload;
        case Edit::kExpireAt:
          return "changed " + name + " @" + std::to_string(change.amount);
        case Edit::kPersist:
          return "changed " + name + " persists";
      }
      return "";
    case ChangeKind::kFlush:
      return "flush " + db;
    case ChangeKind::kSwap:
      return "swap " + db + " " + std::to_string(change.other_db);
    case ChangeKind::kSlots:
      return change.command[0] + ": " + change.command[1];
    case ChangeKind::kUnknown:
    case ChangeKind::kHidden:
      text = change.kind == ChangeKind::kHidden ? "hidden" : "unknown";
      for (const std::string& word : change.command) text += " " + word;
      return text;
  }
  return "";
}

struct Outcome {
  std::vector<std::string> changes;
  StreamPosition position;
  bool in_transaction = false;
  Status status;
};

Outcome Take(const std::string& stream, size_t piece = SIZE_MAX, const redis::StreamLimits& limits = {}) {
  Interrupts interrupts;
  StreamChanges reader(kStart, limits, interrupts);
  Outcome outcome;
  std::vector<StreamChange> changes;
  for (size_t at = 0; at < stream.size() && outcome.status.ok(); at += std::min(piece, stream.size())) {
    reader.Feed(Bytes(stream).substr(at, piece), kReceived);
    while (true) {
      const auto next = reader.Next(changes);
      if (!next.ok()) outcome.status = next.error();
      if (!next.ok() || !next.value()) break;
    }
  }
  for (const StreamChange& change : changes) outcome.changes.push_back(TextOf(change));
  outcome.position = reader.position();
  outcome.in_transaction = reader.in_transaction();
  return outcome;
}

std::vector<std::string> ChangesOf(const std::vector<std::string>& command) {
  const Outcome outcome = Take(Resp(command));
  EXPECT_TRUE(outcome.status.ok()) << command[0];
  EXPECT_EQ(outcome.position.offset, kStart.offset + Resp(command).size());
  return outcome.changes;
}

using Texts = std::vector<std::string>;

TEST(StreamChangesTest, StatesOfStrings) {
  EXPECT_EQ(ChangesOf({"SET", "k", "v"}), Texts{"set 0/k=v"});
  EXPECT_EQ(ChangesOf({"set", "k", ""}), Texts{"set 0/k="});
  EXPECT_EQ(ChangesOf({"SET", "k", "v", "PXAT", "1999999999999"}), Texts{"set 0/k=v@1999999999999"});
  EXPECT_EQ(ChangesOf({"SET", "k", "v", "exat", "1999999999"}), Texts{"set 0/k=v@1999999999000"});
  EXPECT_EQ(ChangesOf({"SET", "k", "v", "PXAT", "5"}), Texts{"set 0/k=v@5"});  // its DEL comes
  for (const char* condition : {"NX", "xx", "GET"})
    EXPECT_EQ(ChangesOf({"SET", "k", "v", condition, "PXAT", "5"}), Texts{"set 0/k=v@5"});
  for (const char* condition : {"IFEQ", "IFNE", "ifdeq", "IFDNE"})
    EXPECT_EQ(ChangesOf({"SET", "k", "v", condition, "KEEPTTL"}), Texts{"set 0/k=v"});
  // These depend on another clock, or on the value or expiry that the key had before.
  for (const std::vector<std::string>& rest : std::vector<Texts>{{"EX", "5"},
                                                                 {"PX", "5"},
                                                                 {"KEEPTTL", "PXAT", "5"},
                                                                 {"LATER"},
                                                                 {"PXAT"},
                                                                 {"PXAT", "x"},
                                                                 {"PXAT", "0"},
                                                                 {"PXAT", "-5"},
                                                                 {"PXAT", "5", "PXAT", "6"},
                                                                 {"EXAT", "9223372036854775807"},
                                                                 {"IFEQ"}}) {
    std::vector<std::string> command = {"SET", "k", "v"};
    command.insert(command.end(), rest.begin(), rest.end());
    EXPECT_EQ(ChangesOf(command), Texts{"changed 0/k"}) << rest[0];
  }
  EXPECT_EQ(ChangesOf({"MSET", "a", "1", "b", ""}), (Texts{"set 0/a=1", "set 0/b="}));
  EXPECT_EQ(ChangesOf({"msetnx", "a", "1"}), Texts{"set 0/a=1"});
  EXPECT_EQ(ChangesOf({"SETNX", "a", "1"}), Texts{"set 0/a=1"});
  EXPECT_EQ(ChangesOf({"MSETEX", "2", "a", "1", "b", "NX"}), (Texts{"set 0/a=1", "set 0/b=NX"}));
  EXPECT_EQ(ChangesOf({"msetex", "2", "a", "1", "b", "2", "XX", "PXAT", "5"}),
            (Texts{"set 0/a=1@5", "set 0/b=2@5"}));
  EXPECT_EQ(ChangesOf({"MSETEX", "2", "a", "1", "b", "2", "EX", "5"}), (Texts{"changed 0/a", "changed 0/b"}));
  EXPECT_EQ(ChangesOf({"SETEX", "k", "5", "v"}), Texts{"changed 0/k"});
  EXPECT_EQ(ChangesOf({"PSETEX", "k", "5", "v"}), Texts{"changed 0/k"});
  EXPECT_EQ(ChangesOf({"GETEX", "k", "PX", "5"}), Texts{"changed 0/k"});
}

TEST(StreamChangesTest, HowStringsChange) {
  EXPECT_EQ(ChangesOf({"INCR", "k"}), Texts{"changed 0/k by 1"});
  EXPECT_EQ(ChangesOf({"decr", "k"}), Texts{"changed 0/k by -1"});
  EXPECT_EQ(ChangesOf({"INCRBY", "k", "-9223372036854775808"}), Texts{"changed 0/k by -9223372036854775808"});
  EXPECT_EQ(ChangesOf({"DECRBY", "k", "7"}), Texts{"changed 0/k by -7"});
  EXPECT_EQ(ChangesOf({"APPEND", "k", "text"}), Texts{"changed 0/k and text"});
  EXPECT_EQ(ChangesOf({"SET", "k", "v", "KEEPTTL"}), Texts{"changed 0/k =v"});
  EXPECT_EQ(ChangesOf({"SET", "k", "v", "XX", "keepttl", "GET"}), Texts{"changed 0/k =v"});
  EXPECT_EQ(ChangesOf({"MSETEX", "2", "a", "1", "b", "2", "KEEPTTL"}),
            (Texts{"changed 0/a =1", "changed 0/b =2"}));
  EXPECT_EQ(ChangesOf({"PEXPIREAT", "k", "5"}), Texts{"changed 0/k @5"});
  EXPECT_EQ(ChangesOf({"PEXPIREAT", "k", "5", "GT"}), Texts{"changed 0/k @5"});
  EXPECT_EQ(ChangesOf({"EXPIREAT", "k", "5"}), Texts{"changed 0/k @5000"});
  EXPECT_EQ(ChangesOf({"PERSIST", "k"}), Texts{"changed 0/k persists"});
  // Words that count from another clock, are no number, or no command of a server.
  for (const std::vector<std::string>& command : std::vector<Texts>{{"EXPIRE", "k", "5"},
                                                                    {"PEXPIRE", "k", "5"},
                                                                    {"PEXPIREAT", "k", "-5"},
                                                                    {"EXPIREAT", "k", "9223372036854775807"},
                                                                    {"DECRBY", "k", "-9223372036854775808"},
                                                                    {"INCRBY", "k", "1.5"},
                                                                    {"INCRBY", "k", "1", "2"},
                                                                    {"INCR", "k", "1"},
                                                                    {"PERSIST", "k", "x"},
                                                                    {"APPEND", "k"},
                                                                    {"SETRANGE", "k", "1", "x"}}) {
    EXPECT_EQ(ChangesOf(command), Texts{"changed 0/k"}) << command[0];
  }
}

// Who takes the changes of a key gets all of them; the others hear that it changes, and no values.
TEST(StreamChangesTest, SharesOfTheKeys) {
  EXPECT_TRUE(KeyShare().Has("k"));
  std::string stream;
  for (int i = 0; i < 50; ++i) {
    const std::string key = "k" + std::to_string(i);
    stream += Resp({"SET", key, "v"}) + Resp({"INCRBY", key, "5"}) + Resp({"HSET", key, "a", "1"}) +
              Resp({"MSET", key, "x", "{" + key + "}", "y"});
  }
  std::vector<size_t> taken;
  size_t elements = 0;
  for (int number = 0; number < 3; ++number) {
    const KeyShare share = {number, 3};
    Interrupts interrupts;
    StreamChanges reader(kStart, {}, interrupts);
    reader.set_wants_elements(true);
    reader.set_share(share);
    reader.Feed(stream, kReceived);
    std::vector<StreamChange> changes;
    for (auto next = reader.Next(changes); next.ok() && next.value(); next = reader.Next(changes)) {
    }
    ASSERT_EQ(changes.size(), 250U);
    taken.push_back(0);
    for (const StreamChange& change : changes) {
      const bool has_value = change.kind == ChangeKind::kSet || change.edit != Edit::kNone || change.elements;
      EXPECT_EQ(has_value, share.Has(change.entry.key)) << change.entry.key;
      taken.back() += has_value ? 1 : 0;
      elements += change.elements ? 1 : 0;
      // A key and others with it as a hash tag are in one share.
      if (change.entry.key[0] == 'k') {
        EXPECT_EQ(share.Has(change.entry.key), share.Has("{" + change.entry.key + "}:rest"));
      }
    }
    EXPECT_EQ(reader.position().offset, kStart.offset + stream.size());
  }
  EXPECT_EQ(taken[0] + taken[1] + taken[2], 250U);
  for (const size_t count : taken) EXPECT_GT(count, 40U);
  EXPECT_EQ(elements, 50U);
}

TEST(StreamChangesTest, StatesOfPayloads) {
  test::RedisServer server;
  test::RedisClient client(server.port());
  client.Command({"RPUSH", "list", "a", "b"});
  const std::string payload = client.String({"DUMP", "list"});
  EXPECT_EQ(ChangesOf({"RESTORE", "k", "0", payload}), Texts{"set 0/k=" + payload});
  EXPECT_EQ(ChangesOf({"RESTORE-ASKING", "k", "0", payload, "REPLACE"}), Texts{"set 0/k=" + payload});
  EXPECT_EQ(ChangesOf({"restore", "k", "77", payload, "replace", "absttl", "IDLETIME", "5"}),
            Texts{"set 0/k=" + payload + "@77"});
  EXPECT_EQ(ChangesOf({"RESTORE", "k", "77", payload, "FREQ", "5", "ABSTTL"}),
            Texts{"set 0/k=" + payload + "@77"});
  for (const std::vector<std::string>& command : std::vector<Texts>{{"RESTORE", "k", "77", payload},
                                                                    {"RESTORE", "k", "-1", payload, "ABSTTL"},
                                                                    {"RESTORE", "k", "x", payload, "ABSTTL"},
                                                                    {"RESTORE", "k", "0", "x"},
                                                                    {"RESTORE", "k", "0", payload, "LATER"},
                                                                    {"RESTORE", "k", "0"}}) {
    EXPECT_EQ(ChangesOf(command), Texts{"changed 0/k"});
  }
}

TEST(StreamChangesTest, KeysThatGoAway) {
  EXPECT_EQ(ChangesOf({"DEL", "a", "b"}), (Texts{"delete 0/a", "delete 0/b"}));
  EXPECT_EQ(ChangesOf({"unlink", "a"}), Texts{"delete 0/a"});
  EXPECT_EQ(ChangesOf({"RENAME", "a", "b"}), (Texts{"delete 0/a", "changed 0/b"}));
  EXPECT_EQ(ChangesOf({"RENAMENX", "a", "b"}), (Texts{"delete 0/a", "changed 0/b"}));
  EXPECT_EQ(ChangesOf({"RENAME", "a", "a"}), (Texts{"changed 0/a", "changed 0/a"}));
  EXPECT_EQ(ChangesOf({"MOVE", "a", "3"}), (Texts{"delete 0/a", "changed 3/a"}));
  EXPECT_EQ(ChangesOf({"FLUSHALL"}), Texts{"flush -1"});
  EXPECT_EQ(ChangesOf({"FLUSHDB", "ASYNC"}), Texts{"flush 0"});
  EXPECT_EQ(ChangesOf({"SWAPDB", "0", "3"}), Texts{"swap 0 3"});
}

TEST(StreamChangesTest, SlotsOfACluster) {
  EXPECT_EQ(ChangesOf({"TRIMSLOTS", "RANGES", "2", "5", "7", "9", "9"}), Texts{"TRIMSLOTS: 5-7,9"});
  EXPECT_EQ(ChangesOf({"cluster", "flushslot", "16383", "ASYNC"}), Texts{"CLUSTER FLUSHSLOT: 16383"});
  EXPECT_TRUE(ChangesOf({"CLUSTER", "SYNCSLOTS", "CONF", "ASM-TASK", "x"}).empty());
  EXPECT_TRUE(ChangesOf({"CLUSTER", "SETSLOT", "5", "NODE", "x"}).empty());
  EXPECT_EQ(ChangesOf({"CLUSTER", "LATER", "1"}), Texts{"hidden CLUSTER"});
  for (const std::vector<std::string>& command :
       std::vector<Texts>{{"TRIMSLOTS", "RANGES", "1", "7", "5"},
                          {"TRIMSLOTS", "RANGES", "1", "7"},
                          {"TRIMSLOTS", "RANGES"},
                          {"TRIMSLOTS", "RANGES", "1", "0", "16384"},
                          {"CLUSTER", "FLUSHSLOT"},
                          {"CLUSTER", "FLUSHSLOT", "-1"}})
    EXPECT_FALSE(Take(Resp(command)).status.ok()) << command[0];
}

TEST(StreamChangesTest, KeysToReadAgain) {
  EXPECT_EQ(ChangesOf({"COPY", "a", "b"}), Texts{"changed 0/b"});
  EXPECT_EQ(ChangesOf({"COPY", "DB", "b", "REPLACE", "DB", "2"}), Texts{"changed 2/b"});
  EXPECT_EQ(ChangesOf({"XGROUP", "CREATE", "x", "g", "0"}), Texts{"changed 0/x"});
  EXPECT_EQ(ChangesOf({"SORT", "a", "STORE", "b"}), Texts{"changed 0/b"});
  EXPECT_EQ(ChangesOf({"LMOVE", "a", "b", "LEFT", "LEFT"}), (Texts{"changed 0/a", "changed 0/b"}));
  EXPECT_TRUE(ChangesOf({"PUBLISH", "a", "b"}).empty());
  EXPECT_TRUE(ChangesOf({"REPLCONF", "GETACK", "*"}).empty());
  EXPECT_EQ(ChangesOf({"JSON.SET", "a", "$", "1"}), Texts{"unknown JSON.SET a $ 1"});
  EXPECT_EQ(ChangesOf({"EVAL", "script", "1", "a"}), Texts{"hidden EVAL"});
}

TEST(StreamChangesTest, DatabasesAndTransactions) {
  const std::string before = Resp({"SELECT", "3"}) + Resp({"SET", "a", "1"});
  const std::string begun =
      before + Resp({"MULTI"}) + Resp({"SET", "b", "2"}) + Resp({"select", "5"}) + Resp({"INCR", "c"});
  const std::string stream = begun + Resp({"EXEC"}) + Resp({"DEL", "d"});
  Outcome outcome = Take(begun);
  EXPECT_TRUE(outcome.in_transaction);
  EXPECT_EQ(outcome.position.offset, kStart.offset + before.size());
  EXPECT_EQ(outcome.position.db, 3);
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    outcome = Take(stream, piece);
    EXPECT_EQ(outcome.changes, (Texts{"set 3/a=1", "set 3/b=2", "changed 5/c by 1", "delete 5/d"}));
    EXPECT_FALSE(outcome.in_transaction);
    EXPECT_EQ(outcome.position.offset, kStart.offset + stream.size());
    EXPECT_EQ(outcome.position.db, 5);
  }
}

TEST(StreamChangesTest, WhatIsTooLarge) {
  const redis::StreamLimits limits{50, 100000};
  const std::string large(51, 'x');
  // The key is enough to read it again.
  EXPECT_EQ(Take(Resp({"SET", "k", large}), SIZE_MAX, limits).changes, Texts{"changed 0/k"});
  EXPECT_EQ(Take(Resp({"RESTORE", "k", "0", large}), SIZE_MAX, limits).changes, Texts{"changed 0/k"});
  EXPECT_EQ(Take(Resp({"APPEND", "k", large}), SIZE_MAX, limits).changes, Texts{"changed 0/k"});
  EXPECT_EQ(Take(Resp({"MSET", "a", large, "b", "1"}), SIZE_MAX, limits).changes,
            (Texts{"changed 0/a", "set 0/b=1"}));
  EXPECT_EQ(Take(Resp({"EVAL", large, "0"}), SIZE_MAX, limits).changes, Texts{"hidden EVAL"});
  for (const std::vector<std::string>& command : std::vector<Texts>{
           {"DEL", large}, {"SET", large, "v"}, {"JSON.SET", "k", "$", large}, {"COPY", "a", large}}) {
    const Outcome outcome = Take(Resp(command), SIZE_MAX, limits);
    ASSERT_FALSE(outcome.status.ok()) << command[0];
    EXPECT_EQ(outcome.status.error().code, ErrorCode::kTooLarge);
    EXPECT_NE(outcome.status.error().detail.find(command[0]), std::string::npos);
  }
  std::vector<std::string> many = {"RPUSH", "k"};
  many.resize(5000, "element");
  EXPECT_EQ(Take(Resp(many), SIZE_MAX, limits).changes, Texts{"changed 0/k"});
  many[0] = "DEL";
  EXPECT_EQ(Take(Resp(many), SIZE_MAX, limits).status.error().code, ErrorCode::kTooLarge);
}

TEST(StreamChangesTest, WhatNoServerSends) {
  for (const std::vector<std::string>& command : std::vector<Texts>{{"SET"},
                                                                    {"SET\xff\n"},
                                                                    {"DEL"},
                                                                    {"RENAME", "a"},
                                                                    {"MOVE", "a"},
                                                                    {"MOVE", "a", "x"},
                                                                    {"MOVE", "a", "0"},
                                                                    {"MOVE", "a", "-1"},
                                                                    {"COPY", "a"},
                                                                    {"COPY", "a", "b", "DB"},
                                                                    {"COPY", "a", "b", "DB", "x"},
                                                                    {"SWAPDB", "0"},
                                                                    {"SWAPDB", "0", "99999999999"},
                                                                    {"SELECT"},
                                                                    {"SELECT", "-1"},
                                                                    {"SELECT", "1x"},
                                                                    {"EXEC"},
                                                                    {"LMPOP", "5", "a"}}) {
    const Outcome outcome = Take(Resp(command));
    if (command[0] == "SET\xff\n") {
      EXPECT_EQ(outcome.changes.size(), 1U);
      continue;
    }
    ASSERT_FALSE(outcome.status.ok()) << command[0];
    EXPECT_EQ(outcome.status.error().code, ErrorCode::kProtocol);
    EXPECT_NE(outcome.status.error().detail.find("byte 1000"), std::string::npos)
        << outcome.status.error().detail;
  }
  EXPECT_FALSE(Take(Resp({"MULTI"}) + Resp({"MULTI"})).status.ok());
  const Outcome strange = Take(Resp({"LMPOP\n"}) + Resp({"DEL"}));
  EXPECT_FALSE(strange.status.ok());
}

// Streams that real servers sent; a text beside each file lists the commands that caused it.
struct Capture {
  const char* file;
  Texts changes;
};

class CapturedStreamTest : public testing::TestWithParam<Capture> {};

TEST_P(CapturedStreamTest, HasItsChanges) {
  std::string path = PRM_REPOSITORY_DIR "/test/data/rdb/" + std::string(GetParam().file);
  if (!std::filesystem::exists(path)) {
    const char* const directory = std::getenv("PRM_RDB_FIXTURES");
    if (directory == nullptr) GTEST_SKIP() << "PRM_RDB_FIXTURES is not set";
    path = std::string(directory) + "/" + GetParam().file;
  }
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  ASSERT_NE(bytes.find("+FULLRESYNC"), std::string::npos);
  test::HostileRedis server([&](const test::HostileRedis::Arguments& arguments) {
    if (arguments.at(0) == "PSYNC")
      return test::HostileRedis::Answer{bytes.substr(bytes.find("+FULLRESYNC")), true};
    return test::HostileRedis::Answer{arguments.at(1) == "ACK" ? "" : "+OK\r\n"};
  });
  test::Follower follower(server.port());
  ASSERT_TRUE(follower.status.ok()) << follower.status.error().message << follower.status.error().detail;
  while (follower.status.ok()) follower.Read(1000);
  for (const size_t piece : {size_t{1}, size_t{13}, SIZE_MAX}) {
    const Outcome outcome = Take(follower.stream, piece);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.error().detail;
    EXPECT_EQ(outcome.changes, GetParam().changes);
    EXPECT_EQ(outcome.position.offset, kStart.offset + follower.stream.size());
  }
}

Texts Repeat(size_t count, const std::string& text) { return Texts(count, text); }

Texts operator+(Texts a, const Texts& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, CapturedStreamTest,
    testing::Values(
        Capture{"redis-7.0.15/psync_disk.bin",
                {"set 0/live=1@1795318580028", "changed 3/n3 by 1", "delete 0/live", "set 0/m1=1",
                 "changed 0/m2", "changed 0/stream:plain", "changed 0/set:big", "changed 0/set:big"}},
        Capture{"redis-7.0.15/psync_diskless.bin",
                {"set 0/live=1@1795318574087", "changed 3/n3 by 1", "delete 0/live", "set 0/m1=1",
                 "changed 0/m2", "changed 0/stream:plain", "changed 0/set:big", "changed 0/set:big"}},
        Capture{"redis-8.0.6/psync.bin", Repeat(15, "changed 0/h") + Repeat(3, "changed 0/vs")},
        Capture{"valkey-9.1.2/psync_no_eof_disk.bin", Repeat(3, "changed 0/h")},
        Capture{"valkey-9.1.2/psync_version900.bin",
                Repeat(14, "changed 0/h") + Texts{"set 0/k=1", "set 0/k=2", "delete 0/k",
                                                  "set 0/a1=1@1999999999000", "set 0/a2=2@1999999999000",
                                                  "changed 0/st", "delete 0/st", "flush 0"}}));

// "own 0/key", or "0/key" for changes of others.
Texts OwnersOf(const std::vector<std::vector<std::string>>& commands) {
  Interrupts interrupts;
  StreamChanges reader(kStart, {}, interrupts);
  reader.set_migration("m");
  std::string stream;
  for (const std::vector<std::string>& command : commands) stream += Resp(command);
  reader.Feed(stream, kReceived);
  std::vector<StreamChange> changes;
  while (true) {
    const auto next = reader.Next(changes);
    EXPECT_TRUE(next.ok());
    if (!next.ok() || !next.value()) break;
  }
  Texts owners;
  for (const StreamChange& change : changes)
    owners.push_back((change.is_own ? "own " : "") + std::to_string(change.entry.db) + "/" +
                     change.entry.key);
  return owners;
}

TEST(StreamChangesTest, TransactionsThatBeginWithAPositionAreOwn) {
  const std::string mark = PositionKeyOf("m");
  const auto begins = [](const std::string& key) {
    return OwnersOf({{"MULTI"}, {"SET", key, "1"}, {"SET", "k", "v"}, {"EXEC"}}).back() == "own 0/k";
  };
  EXPECT_EQ(OwnersOf({{"SET", mark, "1"}, {"SET", "k", "v"}}), (Texts{"0/" + mark, "0/k"}));
  EXPECT_EQ(
      OwnersOf({{"MULTI"}, {"SET", mark, "1"}, {"SET", "k", "v"}, {"DEL", "l"}, {"EXEC"}, {"SET", "k", "w"}}),
      (Texts{"own 0/" + mark, "own 0/k", "own 0/l", "0/k"}));
  // The server selects databases where it needs to.
  EXPECT_EQ(
      OwnersOf(
          {{"MULTI"}, {"SELECT", "0"}, {"SET", mark, "1"}, {"SELECT", "2"}, {"SET", "k", "v"}, {"EXEC"}}),
      (Texts{"own 0/" + mark, "own 2/k"}));
  EXPECT_EQ(OwnersOf({{"MULTI"}, {"SET", "k", "v"}, {"SET", mark, "1"}, {"EXEC"}}),
            (Texts{"0/k", "0/" + mark}));
  EXPECT_EQ(OwnersOf({{"MULTI"}, {"DEL", mark}, {"SET", "k", "v"}, {"EXEC"}}), (Texts{"0/" + mark, "0/k"}));
  EXPECT_TRUE(begins(PositionKeyOf("m", "77")));  // of a slot of a cluster
  for (const std::string& key : {mark + "s", PositionKeyOf("mm"), PositionKeyOf("mm", "77"),
                                 PositionKeyOf("m", ""), PositionKeyOf("m", "x"), std::string("m")})
    EXPECT_FALSE(begins(key)) << key;
  EXPECT_EQ(OwnersOf({{"MULTI"}, {"SET", mark, "1"}, {"EXEC"}, {"MULTI"}, {"SET", "k", "v"}, {"EXEC"}}),
            (Texts{"own 0/" + mark, "0/k"}));
}

}  // namespace
}  // namespace prm::stream
