// Small strings, which a scan reads by GETRANGE: 1023 bytes are the longest.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

using test::Name;

constexpr size_t kLongest = 1023;

class StringOf : public rdb::ValueVisitor {
 public:
  explicit StringOf(const Entry& entry) {
    const Status status = Decode(entry, *this);
    EXPECT_TRUE(status.ok()) << status.error().message;
  }
  void OnString(Bytes bytes) override { value = bytes; }
  std::string value = "no string";
};

class ScanStringsTest : public test::ScanFixture {
 protected:
  using ScanFixture::ScanFixture;
  ScanStringsTest() = default;

  std::map<Name, Entry> Scan() {
    const auto connection = Connect();
    return ReadAll(*Open(*connection));
  }

  std::string Get(const Name& name) { return client_.String({"GET", name.second}); }

  // Key 5 of 20 is acted upon before the n-th command of that kind for it.
  Entry Changed(const std::string& command, int n, const std::vector<std::vector<std::string>>& actions) {
    client_.Command({"FLUSHALL"});
    Populate(20);
    KeepExpiring();
    auto entries = ScanWith(Before(command, "key:5", n, [&] {
      for (const auto& action : actions) client_.Command(action);
    }));
    EXPECT_EQ(entries.size(), 20U);
    return entries.at({0, "key:5"});
  }
};

std::string Binary(size_t size) {
  std::string bytes;
  for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>((i * 7 + size) % 256));
  return bytes;
}

TEST_F(ScanStringsTest, OfEveryLength) {
  std::vector<size_t> sizes = {63, 64, 2000, 16383, 16384, 70000};
  for (size_t size = 0; size < 40; ++size) sizes.push_back(size);
  for (size_t size = 1000; size < 1050; ++size) sizes.push_back(size);
  for (const size_t size : sizes) client_.Command({"SET", std::to_string(size), Binary(size)});
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), sizes.size());
  long general = 0;
  for (const auto& [name, entry] : entries) {
    const size_t size = std::stoul(name.second);
    EXPECT_EQ(entry.state, EntryState::kRead) << size;
    EXPECT_EQ(entry.plain, size > 0 && size <= kLongest) << size;
    EXPECT_TRUE(StringOf(entry).value == Binary(size)) << size;
    if (!entry.plain) ++general;
  }
  EXPECT_EQ(Calls("dump"), general);
  EXPECT_EQ(Calls("memory|usage"), general);
  EXPECT_EQ(Calls("getrange"), 1 + static_cast<long>(sizes.size()));
}

TEST_F(ScanStringsTest, Numbers) {
  const std::vector<std::string> numbers = {
      "0", "-1", "127", "007", "1.5", "9223372036854775807", "-9223372036854775808", "9223372036854775808"};
  for (const std::string& number : numbers) client_.Command({"SET", "n:" + number, number});
  client_.Command({"INCRBY", "n:41", "41"});
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), numbers.size() + 1);
  for (const auto& [name, entry] : entries) {
    EXPECT_TRUE(entry.plain);
    EXPECT_EQ(entry.payload, name.second.substr(2));
  }
}

TEST_F(ScanStringsTest, WithExpiries) {
  client_.Command({"EVAL",
                   "for i = 0, 999 do redis.call('SET', 'key:' .. i, i) "
                   "if i % 2 == 0 then redis.call('PEXPIREAT', 'key:' .. i, 4102444800000 + i) end end",
                   "0"});
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 1000U);
  for (int i = 0; i < 1000; ++i) {
    const Entry& entry = entries.at({0, "key:" + std::to_string(i)});
    EXPECT_TRUE(entry.plain);
    EXPECT_EQ(entry.expires_at_ms.value_or(-1), i % 2 == 0 ? 4102444800000 + i : -1);
  }
}

TEST_F(ScanStringsTest, DeletedAtAnyPoint) {
  for (const auto& [command, n] : {std::pair("PEXPIRETIME", 1), {"GETRANGE", 1}, {"PEXPIRETIME", 2}}) {
    EXPECT_EQ(Changed(command, n, {{"DEL", "key:5"}}).state, EntryState::kVanished) << command << n;
  }
}

// A key that is gone before and after needs no other command.
TEST_F(ScanStringsTest, DeletedBeforeItIsAskedFor) {
  EXPECT_EQ(Changed("PEXPIRETIME", 1, {{"DEL", "key:5"}}).state, EntryState::kVanished);
  EXPECT_EQ(Calls("memory|usage"), 0);
  EXPECT_EQ(Calls("dump"), 0);
}

// GETRANGE finds no key, and the answer about its expiry does not say that.
TEST_F(ScanStringsTest, GoneForAMoment) {
  bool gone = false;
  KeepExpiring();
  client_.Command({"SET", "key", "value"});
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    if (queue[0] == Arguments{"GETRANGE", "key", "0", "1023"}) client_.Command({"RENAME", "key", "away"});
    if (queue[0][0] == "PEXPIRETIME" && client_.Integer({"EXISTS", "away"}) == 1) {
      client_.Command({"RENAME", "away", "key"});
      gone = true;
    }
  });
  EXPECT_TRUE(gone);
  const Entry& entry = entries.at({0, "key"});
  EXPECT_EQ(entry.state, EntryState::kRead);
  EXPECT_EQ(StringOf(entry).value, "value");
}

// The key exists for a moment only.
TEST_F(ScanStringsTest, BackForAMoment) {
  KeepExpiring();
  client_.Command({"SET", "key", "value"});
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    if (queue[0] == Arguments{"PEXPIRETIME", "key"}) client_.Command({"DEL", "key"});
    if (queue[0] == Arguments{"GETRANGE", "key", "0", "1023"}) client_.Command({"SET", "key", "value"});
  });
  EXPECT_EQ(entries.at({0, "key"}).state, EntryState::kVanished);
}

TEST_F(ScanStringsTest, ValueAndExpiryBelongTogether) {
  for (const auto& [command, n] : {std::pair("GETRANGE", 1), std::pair("PEXPIRETIME", 2)}) {
    const Entry entry = Changed(command, n, {{"SET", "key:5", "new", "PXAT", "4102444800123"}});
    EXPECT_EQ(StringOf(entry).value, "new") << command;
    EXPECT_EQ(entry.expires_at_ms, 4102444800123) << command;
  }
}

TEST_F(ScanStringsTest, ANewValueIsTheOldOrTheNew) {
  EXPECT_EQ(StringOf(Changed("GETRANGE", 1, {{"SET", "key:5", "new"}})).value, "new");
  EXPECT_EQ(StringOf(Changed("PEXPIRETIME", 2, {{"SET", "key:5", "new"}})).value, "vvvvvvvvvv");
}

TEST_F(ScanStringsTest, AChangeOfTypeIsRead) {
  for (const int n : {1, 2}) {
    const Entry entry =
        Changed("PEXPIRETIME", n,
                {{"DEL", "key:5"}, {"HSET", "key:5", "f", "v"}, {"PEXPIREAT", "key:5", "4102444800123"}});
    EXPECT_FALSE(entry.plain);
    EXPECT_EQ(entry.payload, client_.String({"DUMP", "key:5"}));
    EXPECT_EQ(entry.expires_at_ms, 4102444800123);
  }
}

TEST_F(ScanStringsTest, OneThatShrinksAfterTheProbeIsRead) {
  client_.Command({"SET", "key", std::string(5000, 'x')});
  const auto entries = ScanWith(Before("DUMP", "key", 1, [&] { client_.Command({"SET", "key", "short"}); }));
  EXPECT_EQ(StringOf(entries.at({0, "key"})).value, "short");
}

TEST_F(ScanStringsTest, AKeyThatNeverRestsIsReadAllTheSame) {
  KeepExpiring();
  client_.Command({"SET", "busy", "v"});
  long long writes = 0;
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    if (queue[0].size() < 2 || queue[0][1] != "busy" || queue[0][0] == "PEXPIRETIME") return;
    client_.Command(
        {"SET", "busy", "v" + std::to_string(++writes), "PXAT", std::to_string(4102444800000 + writes)});
  });
  EXPECT_EQ(writes, 1 + 3);
  const Entry& entry = entries.at({0, "busy"});
  EXPECT_EQ(StringOf(entry).value, "v4");
  EXPECT_EQ(entry.expires_at_ms, 4102444800004);
}

// Each GETRANGE counts with the most that it can bring, beside the values that were asked for by DUMP.
TEST_F(ScanStringsTest, BytesInFlightAreCapped) {
  client_.Command({"CONFIG", "SET", "rdbcompression", "no"});
  Populate(2000);
  for (int i = 0; i < 100; ++i)
    client_.Command({"SET", "large:" + std::to_string(i), std::string(20000, 'x')});
  options_.bytes_in_flight = 100000;
  uint64_t most = 0;
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    uint64_t bytes = 0;
    for (const Arguments& command : queue) {
      if (command[0] == "DUMP") bytes += 20000;
      if (command[0] == "GETRANGE") bytes += kLongest + 1;
    }
    most = std::max(most, bytes);
  });
  EXPECT_EQ(entries.size(), 2100U);
  EXPECT_LE(most, options_.bytes_in_flight);
  EXPECT_GE(most, 60000U);  // it does read ahead
}

// MEMORY USAGE decides, whichever way the value is read.
TEST_F(ScanStringsTest, WhatIsTooLargeStaysSo) {
  for (size_t size = 1; size < kLongest; size += 20) {
    client_.Command({"SET", "set:" + std::to_string(size), std::string(size, 'x')});
    for (size_t i = 0; i < size; i += 20) {
      client_.Command({"APPEND", "grown:" + std::to_string(size), std::string(20, 'x')});
    }
    client_.Command({"SET", std::string(10 * size, 'k'), "v"});
  }
  std::map<std::string, uint64_t> usages;
  for (const std::string& key : client_.Strings({"KEYS", "*"})) {
    usages[key] = static_cast<uint64_t>(client_.Integer({"MEMORY", "USAGE", key}));
  }
  for (const uint64_t most : {500, 1150, 1300, 1500, 2500, 4200, 6000, 20000}) {
    options_.max_value_bytes = most;
    size_t large = 0;
    for (const auto& [name, entry] : Scan()) {
      const uint64_t usage = usages.at(name.second);
      ASSERT_EQ(entry.state, usage > most ? EntryState::kTooLarge : EntryState::kRead) << usage;
      ASSERT_EQ(entry.size, usage > most ? usage : 0);
      if (usage > most) ++large;
    }
    EXPECT_EQ(large > 0, most < 10000) << most;
  }
}

TEST_F(ScanStringsTest, WithoutTheRightToGetrange) {
  Populate(3000);
  client_.Command({"ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@all", "-getrange"});
  connection_options_.username = "reader";
  connection_options_.password = "s3cret";
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 3000U);
  for (const auto& [name, entry] : entries) {
    EXPECT_FALSE(entry.plain);
    EXPECT_EQ(entry.payload, client_.String({"DUMP", name.second}));
  }
}

// The user may lose the right during the scan, or have it for some keys only.
TEST_F(ScanStringsTest, ARefusalIsNoError) {
  Populate(3000);
  client_.Command({"ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@all"});
  connection_options_.username = "reader";
  connection_options_.password = "s3cret";
  options_.bytes_in_flight = 102400;  // 100 names under way
  int seen = 0;
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    if (queue[0][0] == "GETRANGE" && ++seen == 51) client_.Command({"ACL", "SETUSER", "reader", "-getrange"});
  });
  EXPECT_EQ(entries.size(), 3000U);
  size_t plain = 0;
  for (const auto& [name, entry] : entries) {
    ASSERT_EQ(StringOf(entry).value, Get(name));
    if (entry.plain) ++plain;
  }
  EXPECT_EQ(plain, 49U);  // the first of 50 was a test of the right
  EXPECT_LE(seen, 1 + 100 + 2 * 128 + 3000 / 32);
}

// The stored rows must not depend on the way that a value took.
TEST_F(ScanStringsTest, DumpsAreTheSameWithoutGetrange) {
  for (const size_t size : {0, 1, 20, 21, 63, 64, 500, 1022, 1023, 1024, 1025, 3000}) {
    client_.Command({"SET", "same:" + std::to_string(size), std::string(size, 'x')});  // DUMP compresses it
    client_.Command({"SET", "mixed:" + std::to_string(size), Binary(size)});
  }
  for (const std::string& number : std::vector<std::string>{"0", "-1", "300", "70000", "5000000000", "007"}) {
    client_.Command({"SET", "number:" + number, number});
  }
  client_.Command({"HSET", "hash", "field", "value"});
  const auto with = Scan();
  client_.Command({"ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@all", "-getrange"});
  connection_options_.username = "reader";
  connection_options_.password = "s3cret";
  const auto without = Scan();
  ASSERT_EQ(with.size(), 31U);
  ASSERT_EQ(without.size(), with.size());
  for (const auto& [name, entry] : with) {
    const std::string dump = DumpOf(entry).value();
    EXPECT_TRUE(DumpOf(without.at(name)).value() == dump) << name.second;
    client_.Command({"RESTORE", "copy", "0", dump, "REPLACE"});
    EXPECT_EQ(client_.String({"DUMP", "copy"}), client_.String({"DUMP", name.second})) << name.second;
  }
}

class ScanWithoutGetrangeTest : public ScanStringsTest {
 protected:
  ScanWithoutGetrangeTest() : ScanStringsTest({"--rename-command", "GETRANGE", ""}) {}
};

TEST_F(ScanWithoutGetrangeTest, StringsAreReadLikeOtherTypes) {
  Populate(3000);
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 3000U);
  for (const auto& [name, entry] : entries) {
    EXPECT_FALSE(entry.plain);
    EXPECT_EQ(entry.payload, client_.String({"DUMP", name.second}));
  }
}

class ScanStringsWithoutPexpiretimeTest : public ScanStringsTest {
 protected:
  ScanStringsWithoutPexpiretimeTest() : ScanStringsTest({"--rename-command", "PEXPIRETIME", "ORIGINAL"}) {}
};

TEST_F(ScanStringsWithoutPexpiretimeTest, ReadsThemTheSameWay) {
  const Entry before = Changed("PTTL", 1, {{"DEL", "key:5"}});
  EXPECT_EQ(before.state, EntryState::kVanished);
  const Entry between = Changed("GETRANGE", 1, {{"SET", "key:5", "new", "PXAT", "4102444800123"}});
  EXPECT_EQ(StringOf(between).value, "new");
  EXPECT_NEAR(static_cast<double>(between.expires_at_ms.value_or(0)), 4102444800123, 1000);
  client_.Command({"SET", "other", "short"});
  EXPECT_TRUE(Scan().at({0, "other"}).plain);
}

// The scan sends no GETRANGE to databases of collections, and notices when strings come.
TEST_F(ScanStringsTest, WhereStringsAreFewASampleIsAsked) {
  client_.Command({"EVAL", "for i = 1, 40000 do redis.call('HSET', 'hash:' .. i, 'f', i) end", "0"});
  client_.Command({"SELECT", "1"});
  Populate(40000);
  options_.databases = {0, 1};
  options_.batch_keys = 2000;
  options_.bytes_in_flight = 1 << 20;  // 1024 names under way
  const auto connection = Connect();
  const auto source = Open(*connection);
  std::map<Name, Entry> entries;
  long for_hashes = 0;
  for (Batch batch; Next(*source, batch);) {
    if (batch.entries.empty() || batch.entries.back().db == 0) for_hashes = Calls("getrange");
    Take(batch, entries);
  }
  ASSERT_EQ(entries.size(), 80000U);
  EXPECT_GE(for_hashes, 1000);
  // The sample of the first page of strings may have been asked by then.
  EXPECT_LE(for_hashes, 1024 + 128 + 40000 / 32 + 1 + 1024 / 32);
  size_t plain = 0;
  for (const auto& [name, entry] : entries) {
    ASSERT_EQ(entry.state, EntryState::kRead);
    if (entry.plain) ++plain;
  }
  EXPECT_GE(plain, 25000U);
}

TEST_F(ScanStringsTest, AmongOtherTypes) {
  client_.Command({"EVAL",
                   "for i = 1, 3000 do redis.call('SET', 's:' .. i, string.rep('v', i)) "
                   "redis.call('RPUSH', 'l:' .. i, i) redis.call('SADD', 'm:' .. i, i) "
                   "redis.call('SET', 'e:' .. i, '') end",
                   "0"});
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 12000U);
  for (const auto& [name, entry] : entries) {
    ASSERT_EQ(entry.state, EntryState::kRead);
    if (entry.plain) {
      ASSERT_EQ(name.second[0], 's');
      ASSERT_EQ(entry.payload, Get(name));
    } else {
      ASSERT_EQ(entry.payload, client_.String({"DUMP", name.second}));
    }
  }
}

}  // namespace
}  // namespace prm::source
