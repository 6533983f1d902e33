// A scan of keys that change meanwhile, without GETRANGE: see source_scan_strings_test.cpp for what differs
// with it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

using test::Name;

class ScanChangesTest : public test::ScanFixture {
 protected:
  using ScanFixture::ScanFixture;
  ScanChangesTest() : ScanFixture({"--rename-command", "GETRANGE", "UNUSED"}) {}
};

TEST_F(ScanChangesTest, AKeyThatIsDeletedByTheFilterHasVanished) {
  Populate(100);
  filter_.decide = [&](int, Bytes key) {
    if (key == "key:7" || key == "key:70") client_.Command({"DEL", std::string(key)});
    return Interest::kRead;
  };
  const auto connection = Connect();
  const auto entries = ReadAll(*Open(*connection));
  EXPECT_EQ(entries.size(), 100U);
  for (const auto& [name, entry] : entries) {
    const bool deleted = name.second == "key:7" || name.second == "key:70";
    EXPECT_EQ(entry.state, deleted ? EntryState::kVanished : EntryState::kRead) << name.second;
  }
}

TEST_F(ScanChangesTest, AKeyThatIsDeletedAtAnyPointHasVanishedOrWasRead) {
  KeepExpiring();
  Populate(20);
  const struct {
    const char* command;
    int n;
    EntryState state;
  } cases[] = {{"USAGE", 1, EntryState::kVanished},
               {"PEXPIRETIME", 1, EntryState::kVanished},
               {"DUMP", 1, EntryState::kVanished},
               {"PEXPIRETIME", 2, EntryState::kVanished},
               {"PEXPIRETIME", 3, EntryState::kRead}};
  for (const auto& point : cases) {
    client_.Command({"SET", "key:5", "v"});
    const auto entries = ScanWith([&, seen = 0](const std::vector<Arguments>& queue) mutable {
      const bool is_usage = std::string(point.command) == "USAGE" && queue[0][0] == "MEMORY";
      if (queue[0].back() == "key:5" && (is_usage || queue[0][0] == point.command) && ++seen == point.n) {
        client_.Command({"DEL", "key:5"});
      }
    });
    EXPECT_EQ(entries.size(), 20U);
    EXPECT_EQ(entries.at({0, "key:5"}).state, point.state) << point.command << point.n;
  }
}

// The old value with the new expiry, or the new value with the old, would be a lie.
TEST_F(ScanChangesTest, ValueAndExpiryBelongTogether) {
  KeepExpiring();
  for (const auto& [command, n] : {std::pair("DUMP", 1), std::pair("PEXPIRETIME", 2)}) {
    client_.Command({"SET", "session", "old"});
    const auto entries = ScanWith(Before(command, "session", n, [&] {
      client_.Command({"SET", "session", "new", "PXAT", "4102444800123"});
    }));
    const Entry& entry = entries.at({0, "session"});
    EXPECT_EQ(entry.payload, client_.String({"DUMP", "session"})) << command;
    EXPECT_EQ(entry.expires_at_ms, 4102444800123) << command;
  }
}

TEST_F(ScanChangesTest, AKeyThatNeverRestsIsReadAllTheSame) {
  KeepExpiring();
  client_.Command({"SET", "busy", "v"});
  long long writes = 0;
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    if (queue[0][0] != "DUMP") return;
    client_.Command(
        {"SET", "busy", "v" + std::to_string(++writes), "PXAT", std::to_string(4102444800000 + writes)});
  });
  EXPECT_EQ(writes, 3);
  const Entry& entry = entries.at({0, "busy"});
  EXPECT_EQ(entry.state, EntryState::kRead);
  EXPECT_EQ(entry.payload, client_.String({"DUMP", "busy"}));
  EXPECT_EQ(entry.expires_at_ms, 4102444800003);
}

TEST_F(ScanChangesTest, AChangeOfTypeIsRead) {
  KeepExpiring();
  client_.Command({"SET", "key", "v"});
  const auto entries = ScanWith(Before("PEXPIRETIME", "key", 1, [&] {
    client_.Command({"DEL", "key"});
    client_.Command({"HSET", "key", "field", "value"});
  }));
  EXPECT_EQ(entries.at({0, "key"}).payload, client_.String({"DUMP", "key"}));
}

TEST_F(ScanChangesTest, BytesInFlightAreCapped) {
  client_.Command({"CONFIG", "SET", "rdbcompression", "no"});
  Populate(100, 50000);
  client_.Command({"SET", "key:larger than the cap", std::string(2000000, 'x')});
  options_.bytes_in_flight = 500000;
  options_.batch_keys = 30;
  uint64_t most = 0;
  uint64_t most_beside_the_largest = 0;
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    uint64_t small = 0;
    bool large = false;
    for (const Arguments& command : queue) {
      if (command[0] != "DUMP") continue;
      if (command[1] == "key:larger than the cap") {
        large = true;
      } else {
        small += 50000;
      }
    }
    most = std::max(most, small);
    if (large) most_beside_the_largest = std::max(most_beside_the_largest, small);
  });
  EXPECT_EQ(entries.size(), 101U);
  EXPECT_LE(most, options_.bytes_in_flight);
  EXPECT_GE(most, 300000U);  // it does read ahead
  EXPECT_EQ(most_beside_the_largest, 0U);
}

// If MEMORY USAGE is forbidden, the scan asks strings for their length and reads everything else alone.
TEST_F(ScanChangesTest, WithoutMemoryUsageAndPiecesCollectionsAreReadAlone) {
  Populate(200, 100);
  for (int i = 0; i < 100; ++i) client_.Command({"HSET", "hash:" + std::to_string(i), "field", "value"});
  client_.Command({"ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@all", "-memory", "-hscan"});
  connection_options_.username = "reader";
  connection_options_.password = "s3cret";
  size_t most_strings = 0;
  size_t most_beside_a_hash = 0;
  const auto entries = ScanWith([&](const std::vector<Arguments>& queue) {
    size_t strings = 0;
    size_t hashes = 0;
    for (const Arguments& command : queue) {
      if (command[0] == "DUMP") ++(command[1][0] == 'h' ? hashes : strings);
    }
    most_strings = std::max(most_strings, strings);
    if (hashes > 0) most_beside_a_hash = std::max(most_beside_a_hash, hashes + strings);
  });
  EXPECT_EQ(entries.size(), 300U);
  EXPECT_EQ(entries.at({0, "hash:5"}).payload, client_.String({"DUMP", "hash:5"}));
  EXPECT_GT(most_strings, 1U);
  EXPECT_EQ(most_beside_a_hash, 1U);
}

// While the caller stores a batch, Redis prepares the next.
TEST_F(ScanChangesTest, WorksAhead) {
  Populate(20000);
  options_.batch_keys = 2000;
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  ASSERT_TRUE(Next(*source, batch));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_GE(Calls("dump"), static_cast<long>(batch.entries.size()) + 1500);
}

class ScanShrinkTest : public ScanChangesTest {
 protected:
  ScanShrinkTest() : ScanChangesTest({"--enable-debug-command", "yes"}) {}

  // Deletes all keys but every 16th during a scan; what remains must be returned once. Returns the repeated
  // names.
  uint64_t ScanShrinking(int keys, int batches_before, const std::function<void()>& shrink) {
    client_.Command({"FLUSHALL"});
    Populate(keys, 1);
    const auto connection = Connect();
    const auto source = Open(*connection);
    std::map<Name, Entry> entries;
    for (Batch batch; Next(*source, batch);) {
      Take(batch, entries);
      if (--batches_before != 0) continue;
      client_.Command({"EVAL",
                       "for i = 0, ARGV[1] - 1 do if i % 16 ~= 0 then redis.call('DEL', 'key:' .. i) end end",
                       "0", std::to_string(keys)});
      shrink();
    }
    for (int i = 0; i < keys; i += 16) {
      const auto found = entries.find({0, "key:" + std::to_string(i)});
      const bool read = found != entries.end() && found->second.state == EntryState::kRead;
      EXPECT_TRUE(read) << i;
      if (!read) break;
    }
    return source->duplicates();
  }
};

// The table is rehashed while the scan goes on.
TEST_F(ScanShrinkTest, AShrinkingTableLosesNothingAndRepeatsNothing) {
  options_.batch_keys = 5000;
  for (const int batches_before : {1, 4}) {
    ScanShrinking(50000, batches_before, [] { std::this_thread::sleep_for(std::chrono::milliseconds(250)); });
  }
}

// SCAN returns names again when the table has shrunk, but only those of the bucket where it is: see dictScan.
// With one name in a bucket, about half of the scans meet one.
TEST_F(ScanShrinkTest, WhatScanRepeatsIsDropped) {
  options_.scan_count = 100;
  options_.batch_keys = 500;
  uint64_t duplicates = 0;
  for (int round = 1; round <= 40; ++round) {
    duplicates += ScanShrinking(16384, 1 + round % 20, [&] { client_.Command({"DEBUG", "RELOAD"}); });
  }
  EXPECT_GT(duplicates, 0U);
}

// While the application goes on writing, keys that exist all the time are returned once.
TEST_F(ScanChangesTest, AGrowingTableLosesNothingAndRepeatsNothing) {
  Populate(10000, 1);
  options_.batch_keys = 2000;
  const auto connection = Connect();
  const auto source = Open(*connection);
  std::map<Name, Entry> entries;
  int more = 0;
  for (Batch batch; Next(*source, batch) && more < 30;) {
    Take(batch, entries);
    ++more;
    client_.Command({"EVAL", "for i = 1, 3000 do redis.call('SET', 'more:' .. ARGV[1] .. ':' .. i, 1) end",
                     "0", std::to_string(more)});
  }
  for (int i = 0; i < 10000; ++i) ASSERT_EQ(entries.count({0, "key:" + std::to_string(i)}), 1U) << i;
}

}  // namespace
}  // namespace prm::source
