// Databases without expiries, whose values are read without asking for the expiry of each key.
#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>

#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

using test::Name;

constexpr int64_t kLater = 4102444800123;

class ScanCalmTest : public test::ScanFixture {
 protected:
  std::map<Name, Entry> Scan() {
    const auto connection = Connect();
    return ReadAll(*Open(*connection));
  }

  // PEXPIRETIME was used for no more than the test of whether it exists.
  bool AskedForNoExpiry() { return Calls("pexpiretime") <= 1; }

  // Reads 20 strings or hashes. Calls `action` before the INFO that is to prove what was read of them.
  std::map<Name, Entry> ScanWithLate(const std::function<void()>& action) {
    int infos = 0;
    return ScanWith([&, done = false](const std::vector<Arguments>& queue) mutable {
      // The first is that of Open, the second begins the database.
      if (queue[0][0] != "INFO" || ++infos < 3 || done) return;
      done = true;
      action();
    });
  }

  void PopulateHashes() {
    client_.Command(
        {"EVAL", "for i = 0, 19 do redis.call('HSET', 'key:' .. i, 'f', string.rep('v', 10)) end", "0"});
  }
};

TEST_F(ScanCalmTest, StringsNeedOneCommandEach) {
  Populate(12000);
  EXPECT_EQ(Scan().size(), 12000U);
  EXPECT_TRUE(AskedForNoExpiry());
  EXPECT_EQ(Calls("getrange"), 1 + 12000);
  EXPECT_LE(Calls("info"), 10);
}

TEST_F(ScanCalmTest, OtherValuesAreReadWithoutThemToo) {
  PopulateHashes();
  client_.Command({"SET", "large", std::string(5000, 'x')});
  client_.Command({"SET", "empty", ""});
  const auto entries = Scan();
  EXPECT_EQ(entries.size(), 22U);
  for (const auto& [name, entry] : entries) {
    EXPECT_EQ(entry.payload, client_.String({"DUMP", name.second})) << name.second;
    EXPECT_FALSE(entry.expires_at_ms);
  }
  EXPECT_TRUE(AskedForNoExpiry());
}

// Expiries of other databases do not matter.
TEST_F(ScanCalmTest, EachDatabaseIsJudgedByItself) {
  Populate(20);
  client_.Command({"SELECT", "1"});
  client_.Command({"SET", "session", "v", "PXAT", std::to_string(kLater)});
  client_.Command({"SELECT", "2"});
  Populate(20);
  options_.databases = {0, 1, 2};
  const auto entries = Scan();
  EXPECT_EQ(entries.size(), 41U);
  EXPECT_EQ(entries.at({1, "session"}).expires_at_ms, kLater);
  EXPECT_EQ(Calls("pexpiretime"), 1 + 2);
}

TEST_F(ScanCalmTest, AnExpiryThatComesBetweenIsRead) {
  for (const bool strings : {true, false}) {
    client_.Command({"FLUSHALL"});
    if (strings) {
      Populate(20);
    } else {
      PopulateHashes();
    }
    for (const std::string change : {"PEXPIREAT", "RENAME"}) {
      client_.Command({"PERSIST", "key:5"});
      const auto entries = ScanWithLate([&] {
        if (change == "RENAME") {
          client_.Command({"SET", "other", "new", "PXAT", std::to_string(kLater)});
          client_.Command({"RENAME", "other", "key:5"});
        } else {
          client_.Command({"PEXPIREAT", "key:5", std::to_string(kLater)});
        }
      });
      EXPECT_EQ(entries.size(), 20U);
      for (const auto& [name, entry] : entries) {
        const bool expires = name.second == "key:5";
        EXPECT_EQ(entry.expires_at_ms.value_or(0), expires ? kLater : 0) << name.second << change;
        EXPECT_EQ(entry.state, EntryState::kRead);
      }
      const Entry& changed = entries.at({0, "key:5"});
      EXPECT_EQ(changed.payload, client_.String({changed.plain ? "GET" : "DUMP", "key:5"})) << change;
    }
  }
}

// The value must be read again: its key had an expiry, although INFO shows none before and none after.
TEST_F(ScanCalmTest, AKeyThatExpiresBetweenHasVanished) {
  Populate(20);
  bool set = false;
  int infos = 0;
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    if (queue[0] == Arguments{"GETRANGE", "key:5", "0", "1023"} && !set) {
      client_.Command({"SET", "key:5", "new", "PX", "50"});
      set = true;
    }
    if (queue[0][0] != "INFO" || ++infos != 3) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    for (int i = 0; i < 100 && client_.Integer({"EXISTS", "key:5"}) == 1; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  });
  EXPECT_TRUE(set);
  EXPECT_GE(infos, 3);
  EXPECT_EQ(entries.size(), 20U);
  EXPECT_EQ(entries.at({0, "key:5"}).state, EntryState::kVanished);
  EXPECT_EQ(entries.at({0, "key:6"}).state, EntryState::kRead);
}

TEST_F(ScanCalmTest, OnlyTheFirstDisturbanceCosts) {
  Populate(3000);
  options_.batch_keys = 200;
  options_.scan_count = 100;
  const auto entries = ScanWithLate([&] {
    client_.Command({"SET", "passing", "", "PX", "1"});
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    client_.Command({"GET", "passing"});
  });
  std::set<std::string> names;
  for (const auto& [name, entry] : entries) {
    if (name.second != "passing") names.insert(name.second);
  }
  EXPECT_EQ(names.size(), 3000U);
  // No more than before it, apart from a few that were under way.
  EXPECT_LE(Calls("info"), 10);
}

TEST_F(ScanCalmTest, ReplicasAreAskedForEveryExpiry) {
  Populate(20);
  client_.Command({"CONFIG", "SET", "repl-diskless-sync-delay", "0"});
  test::RedisServer replica({"--replicaof", "127.0.0.1 " + std::to_string(server_.port())});
  test::RedisClient client(replica.port());
  for (int i = 0; i < 1000 && client.Integer({"DBSIZE"}) < 20; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  connection_options_.port = replica.port();
  EXPECT_EQ(Scan().size(), 20U);
  EXPECT_NE(client.String({"INFO", "commandstats"}).find("cmdstat_pexpiretime:calls=41,"), std::string::npos);
}

// The server's answer to INFO changes during the scan, in one of several ways.
TEST_F(ScanCalmTest, WithoutInfoExpiriesAreAskedFor) {
  Populate(20);
  const std::string info = client_.String({"INFO"});
  client_.Command({"PEXPIREAT", "key:5", std::to_string(kLater)});
  const auto bulk = [](const std::string& text) {
    return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
  };
  const auto without = [&](const std::string& text, const std::string& instead) {
    std::string changed = info;
    const size_t at = changed.find(text);
    EXPECT_NE(at, std::string::npos) << text;
    return bulk(at == std::string::npos ? changed : changed.replace(at, text.size(), instead));
  };
  const std::vector<std::string> answers = {":1\r\n",
                                            "$-1\r\n",
                                            "*0\r\n",
                                            "-NOPERM no\r\n",
                                            "+OK\r\n",
                                            bulk(""),
                                            without("run_id:", "other:"),
                                            without("role:master", "role:slave"),
                                            without("db0:keys=20,expires=0,", "db0:keys=20,"),
                                            without("expired_keys:", "other:")};
  const auto scan = [&](const std::string& answer) {
    int infos = 0;
    return ScanInstead([&](const Arguments& command) {
      return command[0] == "INFO" && ++infos > 1 ? answer : std::string();
    });
  };
  EXPECT_FALSE(scan(bulk(info)).at({0, "key:5"}).expires_at_ms);  // a lie that is believed
  for (const std::string& answer : answers) {
    const auto entries = scan(answer);
    EXPECT_EQ(entries.size(), 20U) << answer.substr(0, 20);
    EXPECT_EQ(entries.at({0, "key:5"}).expires_at_ms, kLater) << answer.substr(0, 20);
  }
}

}  // namespace
}  // namespace prm::source
