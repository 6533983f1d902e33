// Databases without expiries, whose values are read without asking for the expiry of each key, and servers
// that nobody writes to, whose expiries are read once.
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

class ScanQuietTest : public ScanCalmTest {
 protected:
  // Until the last save, or the start of the server, was in an earlier second.
  static void WaitASecond() { std::this_thread::sleep_for(std::chrono::milliseconds(1100)); }

  void PopulateExpiring(int count) {
    client_.Command({"EVAL",
                     "for i = 1, ARGV[1] do "
                     "redis.call('SET', 'key:' .. i, 'value ' .. i, 'PXAT', ARGV[2] + i) end",
                     "0", std::to_string(count), std::to_string(kLater)});
  }

  static void ExpectAsPopulated(const std::map<Name, Entry>& entries, size_t count) {
    EXPECT_EQ(entries.size(), count);
    for (const auto& [name, entry] : entries) {
      const std::string number = name.second.substr(4);
      EXPECT_EQ(entry.payload, "value " + number);
      EXPECT_EQ(entry.expires_at_ms, kLater + std::stol(number));
    }
  }

  // Scans 3,500 keys. Once the values of as many keys have been read as there are actions, whose expiries are
  // to be read only afterwards, each action is called with the name of one. Returns these entries.
  std::vector<Entry> ScanWithWrites(const std::vector<std::function<void(const std::string&)>>& actions) {
    std::set<std::string> asked;
    std::vector<std::string> chosen;
    auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
      const std::string& key = queue[0].size() > 1 ? queue[0][1] : queue[0][0];
      const bool is_first = asked.count(key) == 0;
      if (queue[0][0] == "GETRANGE" && is_first && chosen.size() < actions.size()) {
        chosen.push_back(key);
      } else if (queue[0][0] == "PEXPIRETIME" && is_first) {
        asked.insert(key);
        if (!chosen.empty() && chosen.back() == key) actions[chosen.size() - 1](key);
      }
    });
    EXPECT_EQ(chosen.size(), actions.size());
    std::vector<Entry> written;
    for (const std::string& key : chosen) {
      written.push_back(entries.at({0, key}));
      entries.erase({0, key});
    }
    ExpectAsPopulated(entries, 3500 - chosen.size());
    return written;
  }
};

TEST_F(ScanQuietTest, ExpiriesAreReadOnce) {
  PopulateExpiring(40000);
  WaitASecond();
  ExpectAsPopulated(Scan(), 40000);
  EXPECT_LE(Calls("pexpiretime"), 1 + 40000 + 20000);  // at first before and after the values
  EXPECT_EQ(Calls("getrange"), 1 + 40000);
  EXPECT_LE(Calls("info"), 30);
}

TEST_F(ScanQuietTest, WhatIsWrittenBetweenIsReadAgain) {
  options_.batch_keys = 500;
  options_.scan_count = 100;
  options_.bytes_in_flight = 1 << 19;
  const std::string expiry = std::to_string(kLater + 1000000);
  for (const std::string save : {"", "SAVE", "BGSAVE"}) {
    client_.Command({"FLUSHALL"});
    PopulateExpiring(3500);
    client_.Command({"SAVE"});
    WaitASecond();
    // A snapshot takes the write from the count of what has been written.
    const auto hide = [&] {
      if (!save.empty()) client_.Command({save});
      while (client_.String({"INFO"}).find("rdb_bgsave_in_progress:1") != std::string::npos)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    };
    const auto written = ScanWithWrites({[&](const std::string& key) {
                                           client_.Command({"SET", key, "new", "PXAT", expiry});
                                         },
                                         [&](const std::string& key) {
                                           client_.Command({"PEXPIREAT", key, expiry});
                                         },
                                         [&](const std::string& key) {
                                           client_.Command({"PERSIST", key});
                                         },
                                         [&](const std::string& key) {
                                           client_.Command({"DEL", key});
                                           hide();
                                         }});
    ASSERT_EQ(written.size(), 4U);
    EXPECT_EQ(written[3].state, EntryState::kVanished);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(written[i].payload, client_.String({"GET", written[i].key})) << save;
      EXPECT_EQ(written[i].expires_at_ms.value_or(-1), client_.Integer({"PEXPIRETIME", written[i].key}))
          << save;
    }
  }
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
