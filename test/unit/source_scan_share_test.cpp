// The shares of one scan together return every lasting key once, whatever the table does meanwhile.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

using test::Name;

class ScanShareTest : public test::ScanFixture {
 protected:
  ScanShareTest() : ScanShareTest(std::vector<std::string>()) {}
  explicit ScanShareTest(std::vector<std::string> arguments) : ScanFixture(std::move(arguments)) {}

  // Reads the shares one after the other; what each of them returns is added to `times`.
  void ReadShares(int bits, std::map<Name, int>& times) {
    for (uint64_t number = 0; number < uint64_t{1} << bits; ++number) {
      options_.share = {number, bits};
      const auto connection = Connect();
      for (const auto& [name, entry] : ReadAll(*Open(*connection))) ++times[name];
    }
  }

  // How many of the keys "key:0" to "key:<count - 1>" were not returned, and how many more than once.
  struct Wrong {
    int missed = 0;
    int repeated = 0;
  };
  static Wrong Count(const std::map<Name, int>& times, int count) {
    Wrong wrong;
    for (int i = 0; i < count; ++i) {
      const auto found = times.find({0, "key:" + std::to_string(i)});
      if (found == times.end())
        ++wrong.missed;
      else if (found->second > 1)
        ++wrong.repeated;
    }
    return wrong;
  }
};

TEST(CursorShareTest, BeginsAtItsNumberWithTheBitsReversed) {
  EXPECT_EQ((CursorShare{0, 0}).Start(), "0");
  EXPECT_EQ((CursorShare{1, 1}).Start(), "1");
  EXPECT_EQ((CursorShare{1, 2}).Start(), "2");
  EXPECT_EQ((CursorShare{2, 2}).Start(), "1");
  EXPECT_EQ((CursorShare{3, 2}).Start(), "3");
  EXPECT_EQ((CursorShare{1, 2}).NextStart(), "1");
}

TEST(CursorShareTest, GoesOnWhileTheLowBitsStay) {
  const CursorShare share{1, 2};
  EXPECT_TRUE(share.GoesOnAt("2"));
  EXPECT_TRUE(share.GoesOnAt("1022"));
  EXPECT_FALSE(share.GoesOnAt("1"));
  EXPECT_FALSE(share.GoesOnAt("0"));
  EXPECT_FALSE(share.GoesOnAt("18446744073709551618"));  // 2^64 + 2
  EXPECT_FALSE((CursorShare{0, 1}).GoesOnAt("0"));
  EXPECT_TRUE((CursorShare{0, 1}).GoesOnAt("4"));
}

TEST(CursorShareTest, HasBounds) {
  EXPECT_TRUE((CursorShare{3, 2}).IsValid());
  EXPECT_FALSE((CursorShare{4, 2}).IsValid());
  EXPECT_FALSE((CursorShare{0, -1}).IsValid());
  EXPECT_FALSE((CursorShare{0, 3}).IsValid());
}

TEST(NameShareTest, EveryNameIsInOneShare) {
  std::vector<int> sizes(3);
  for (int i = 0; i < 3000; ++i) {
    const std::string name = "key:" + std::to_string(i);
    int in = 0;
    for (uint64_t number = 0; number < 3; ++number) {
      if (!NameShare{number, 3}.Contains(name)) continue;
      ++in;
      ++sizes[number];
    }
    EXPECT_EQ(in, 1) << name;
  }
  for (const int size : sizes) EXPECT_NEAR(size, 1000, 100);
  EXPECT_TRUE(NameShare().Contains(""));
  EXPECT_FALSE((NameShare{3, 3}).IsValid());
  EXPECT_FALSE((NameShare{0, 0}).IsValid());
}

// If the hash changed, a run that is interrupted and resumed after an upgrade would lose keys. The numbers
// come from an implementation of SipHash in another language.
TEST(NameShareTest, TheHashStaysAsItIs) {
  std::string numbers;
  for (int i = 0; i < 16; ++i) {
    for (uint64_t number = 0; number < 4; ++number) {
      if (NameShare{number, 4}.Contains("key:" + std::to_string(i))) numbers += std::to_string(number);
    }
  }
  EXPECT_EQ(numbers, "0302002103332203");
}

TEST_F(ScanShareTest, ServersAreDividedByWhatTheyAre) {
  const auto connection = Connect();
  EXPECT_TRUE(ScanSource::HasCursorShares(redis::FetchInfo(*connection).value()));
  const std::string start = "run_id:" + std::string(40, 'a') + "\r\n";
  const auto division = [&](const std::string& rest) {
    return ScanSource::HasCursorShares(redis::ServerInfo(start + rest));
  };
  const std::string redis = "redis_mode:standalone\r\nredis_build_id:1\r\n";
  const std::string valkey = "server_name:valkey\r\nserver_mode:standalone\r\nredis_build_id:1\r\n";
  EXPECT_TRUE(division(redis));
  EXPECT_TRUE(division(valkey + "valkey_version:7.2.8\r\n"));
  EXPECT_TRUE(division(valkey + "valkey_version:8.0.1\r\n"));
  EXPECT_FALSE(division(valkey + "valkey_version:8.1.0\r\n"));
  EXPECT_FALSE(division(valkey + "valkey_version:9.0.0\r\n"));
  for (const char* other : {"dragonfly_version:df-1", "kvrocks_version:2", "garnet_version:1", "mvcc_depth:0",
                            "server_name:other", "redis_mode:cluster", "redis_build_id:0000000000000000"})
    EXPECT_FALSE(division(redis + other + "\r\n")) << other;
  EXPECT_FALSE(division("redis_mode:standalone\r\n"));
  EXPECT_FALSE(ScanSource::HasCursorShares(redis::ServerInfo(redis)));
}

TEST_F(ScanShareTest, TablesOfEverySizeAreReadOnce) {
  for (const int count : {0, 1, 2, 3, 4, 5, 9, 100, 3000}) {
    client_.Command({"FLUSHALL"});
    Populate(count);
    for (const int bits : {0, 1, 2}) {
      for (const long page : {1L, 7L, 1000L}) {
        if (count == 3000 && page == 1) continue;
        options_.scan_count = page;
        std::map<Name, int> times;
        ReadShares(bits, times);
        EXPECT_EQ(times.size(), static_cast<size_t>(count));
        const Wrong wrong = Count(times, count);
        EXPECT_EQ(wrong.missed, 0) << count << " keys, " << bits << " bits, pages of " << page;
        EXPECT_EQ(wrong.repeated, 0) << count << " keys, " << bits << " bits, pages of " << page;
      }
    }
  }
}

TEST_F(ScanShareTest, EachShareHasItsPartOfTheKeys) {
  Populate(20000);
  for (uint64_t number = 0; number < 4; ++number) {
    options_.share = {number, 2};
    const auto connection = Connect();
    EXPECT_NEAR(static_cast<double>(ReadAll(*Open(*connection)).size()), 5000, 500);
  }
}

TEST_F(ScanShareTest, SharesOfNamesTogetherAreEverything) {
  Populate(3000);
  std::map<Name, int> times;
  for (uint64_t number = 0; number < 3; ++number) {
    options_.names = {number, 3};
    filter_.classified = 0;
    const auto connection = Connect();
    const auto entries = ReadAll(*Open(*connection));
    EXPECT_NEAR(static_cast<double>(entries.size()), 1000, 150);
    EXPECT_EQ(filter_.classified, entries.size());
    for (const auto& [name, entry] : entries) ++times[name];
  }
  EXPECT_EQ(times.size(), 3000U);
  EXPECT_EQ(Count(times, 3000).repeated, 0);
}

TEST_F(ScanShareTest, EveryDatabaseIsDivided) {
  Populate(1000);
  client_.Command({"SELECT", "3"});
  Populate(500);
  options_.databases = {0, 3};
  std::map<Name, int> times;
  ReadShares(2, times);
  EXPECT_EQ(times.size(), 1500U);
  for (const auto& [name, n] : times) EXPECT_EQ(n, 1) << name.first << ' ' << name.second;
}

// Each share can resume at each of its positions.
TEST_F(ScanShareTest, AShareGoesOnFromItsPositions) {
  Populate(3000);
  options_.batch_keys = 150;
  options_.scan_count = 100;
  std::map<Name, int> times;
  for (uint64_t number = 0; number < 4; ++number) {
    options_.share = {number, 2};
    std::string position;
    for (;;) {
      const auto connection = Connect();
      const auto source = Open(*connection, position);
      EXPECT_FALSE(source->restarted());
      Batch batch;
      if (!Next(*source, batch)) break;
      position = batch.position;
      EXPECT_FALSE(batch.goes_beyond);
      for (const Entry& entry : batch.entries) ++times[{entry.db, entry.key}];
    }
  }
  EXPECT_EQ(times.size(), 3000U);
  EXPECT_EQ(Count(times, 3000).repeated, 0);
}

// The initial position, which a run stores before any reader begins.
TEST_F(ScanShareTest, AShareBeginsAtItsFirstPosition) {
  Populate(1000);
  const std::string run_id(redis::FetchInfo(*Connect()).value().run_id());
  std::map<Name, int> times;
  for (uint64_t number = 0; number < 4; ++number) {
    options_.share = {number, 2};
    const auto connection = Connect();
    const auto source = Open(*connection, ScanPosition{run_id, 0, options_.share.Start(), false}.ToString());
    EXPECT_FALSE(source->restarted());
    for (const auto& [name, entry] : ReadAll(*source)) ++times[name];
  }
  EXPECT_EQ(times.size(), 1000U);
  EXPECT_EQ(Count(times, 1000).repeated, 0);
}

TEST_F(ScanShareTest, APositionOfAnotherShareIsAnError) {
  const std::string run_id(redis::FetchInfo(*Connect()).value().run_id());
  options_.share = {1, 2};
  const auto connection = Connect();
  const auto source =
      ScanSource::Open(*connection, options_, filter_, ScanPosition{run_id, 0, "3", false}.ToString());
  ASSERT_FALSE(source.ok());
  EXPECT_EQ(source.error().code, ErrorCode::kInvalidArgument);
}

class ScanShareRehashTest : public ScanShareTest {
 protected:
  ScanShareRehashTest() : ScanShareTest({"--hz", "500", "--enable-debug-command", "yes"}) {
    Populate(kLasting);
    options_.scan_count = 20;
    options_.batch_keys = 100;
    filter_.decide = [](int, Bytes key) {
      return key.substr(0, 4) == "key:" ? Interest::kNameOnly : Interest::kIgnore;
    };
  }

  // Reads all shares side by side while the table grows and shrinks by a factor of 32 again and again.
  void ReadWhileRehashed(int bits, std::map<Name, int>& times) {
    std::vector<std::unique_ptr<redis::Connection>> connections;
    std::vector<std::unique_ptr<ScanSource>> shares;
    for (uint64_t number = 0; number < uint64_t{1} << bits; ++number) {
      options_.share = {number, bits};
      connections.push_back(Connect());
      shares.push_back(Open(*connections.back()));
    }
    Batch batch;
    for (bool more = true; more;) {
      more = false;
      for (const auto& share : shares) {
        Swing();
        if (!Next(*share, batch)) continue;
        more = true;
        for (const Entry& entry : batch.entries) ++times[{entry.db, entry.key}];
      }
    }
    EXPECT_GE(swings_, 2);
  }

  // One step: half of the keys that do not last come or go.
  void Swing() {
    const bool grows = step_ % 4 < 2;
    client_.Command({"EVAL",
                     grows ? "for i = ARGV[1], ARGV[2] do redis.call('SET', 'x:' .. i, '') end"
                           : "for i = ARGV[1], ARGV[2] do redis.call('DEL', 'x:' .. i) end",
                     "0", std::to_string(step_ % 2 * kPassing / 2),
                     std::to_string((step_ % 2 + 1) * kPassing / 2 - 1)});
    if (++step_ % 4 != 0) return;
    // Redis shrinks a table in its own time. This turn of the wheel counts only if it has.
    for (int i = 0; i < 100; ++i) {
      if (client_.String({"DEBUG", "HTSTATS", "0"}).find("table size: " + std::to_string(kSmall) + "\n") !=
          std::string::npos) {
        ++swings_;
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  static constexpr int kLasting = 1000;
  static constexpr int kSmall = 1024;  // buckets for the lasting keys alone
  static constexpr int kPassing = 20000;
  int step_ = 0;
  int swings_ = 0;
};

TEST_F(ScanShareRehashTest, KeysThatLastAreReadOnce) {
  std::map<Name, int> times;
  ReadWhileRehashed(2, times);
  EXPECT_EQ(Count(times, kLasting).missed, 0);
  EXPECT_EQ(Count(times, kLasting).repeated, 0);
}

// With a server that scans in another order, keys would be lost.
TEST_F(ScanShareTest, AnotherOrderIsAnError) {
  const test::RedisProxy proxy(
      server_.port(), [](const std::vector<Arguments>&) {}, {},
      [](const Arguments& command) {
        return command[0] == "SCAN" ? std::string("*2\r\n$1\r\n2\r\n*0\r\n") : std::string();
      });
  connection_options_.port = proxy.port();
  const auto connection = Connect();
  options_.share = {1, 2};
  Batch batch;
  const auto next = Open(*connection)->Next(batch);
  ASSERT_FALSE(next.ok());
  EXPECT_EQ(next.error().code, ErrorCode::kProtocol);
}

}  // namespace
}  // namespace prm::source
