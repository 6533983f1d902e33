// Ending a scan and resuming it: positions, restarts, failures.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

using test::Name;

class ScanResumeTest : public test::ScanFixture {};

TEST_F(ScanResumeTest, EveryPositionLeadsToAllThatRemains) {
  for (const char* db : {"0", "1", "2"}) {
    client_.Command({"SELECT", db});
    Populate(db[0] == '1' ? 0 : 4000, 100);
  }
  options_.databases = {0, 1, 2};
  options_.scan_count = 300;
  // Batches that end with a page, and batches that cannot.
  for (const auto& [batch_keys, batch_bytes] :
       {std::pair<size_t, uint64_t>(1000, 1 << 20), {100, 1 << 20}, {1000, 5000}}) {
    options_.batch_keys = batch_keys;
    options_.batch_bytes = batch_bytes;
    std::vector<std::string> positions;
    std::vector<std::vector<Name>> batches;
    size_t total = 0;
    {
      const auto connection = Connect();
      const auto source = Open(*connection);
      EXPECT_FALSE(source->restarted());
      for (Batch batch; Next(*source, batch);) {
        positions.push_back(batch.position);
        auto& names = batches.emplace_back();
        for (const Entry& entry : batch.entries) names.emplace_back(entry.db, entry.key);
        total += names.size();
      }
    }
    ASSERT_EQ(total, 8000U);
    const size_t step = std::max<size_t>(1, positions.size() / 20);
    for (size_t i = 0; i < positions.size();
         i += i + step < positions.size() || i + 1 == positions.size() ? step : 1) {
      const auto connection = Connect();
      const auto source = Open(*connection, positions[i]);
      EXPECT_FALSE(source->restarted());
      const auto rest = ReadAll(*source);
      size_t remaining = 0;
      for (size_t later = i + 1; later < batches.size(); ++later) {
        remaining += batches[later].size();
        for (const Name& name : batches[later]) ASSERT_EQ(rest.count(name), 1U) << name.second;
      }
      // At most one page is repeated, and none where a batch could end with its page.
      EXPECT_LE(rest.size(), remaining + (batch_keys == 1000 && batch_bytes > 5000 ? 0 : 400))
          << positions[i];
    }
  }
}

// Names that a scan has returned are read without another one, and their positions are those of a scan.
TEST_F(ScanResumeTest, ListedNamesAreReadPageByPage) {
  for (const char* db : {"0", "2"}) {
    client_.Command({"SELECT", db});
    Populate(4000);
  }
  options_.databases = {0, 1, 2};
  options_.scan_count = 300;
  ListedNames listed;
  bool is_open = false;
  const auto is_wanted = [](Bytes key) { return key.back() == '7'; };
  filter_.decide = [&](int db, Bytes key) {
    if (!is_wanted(key)) return Interest::kIgnore;
    if (!std::exchange(is_open, true)) listed.pages.push_back({db, {}, {}, {}});
    listed.pages.back().bytes += key;
    listed.pages.back().ends.push_back(listed.pages.back().bytes.size());
    return Interest::kIgnore;
  };
  options_.end_page = [&](const std::string& cursor) {
    if (std::exchange(is_open, false)) listed.pages.back().cursor = cursor;
  };
  EXPECT_EQ(
      [&] {
        const auto connection = Connect();
        return ReadAll(*Open(*connection));
      }()
          .size(),
      0U);
  EXPECT_GT(listed.pages.size(), 10U);

  filter_.decide = [&](int, Bytes key) { return is_wanted(key) ? Interest::kRead : Interest::kIgnore; };
  options_.end_page = nullptr;
  options_.listed = &listed;
  options_.batch_keys = 100;
  std::vector<std::string> positions;
  std::vector<std::vector<Name>> batches;
  const long scans = Calls("scan");
  {
    const auto connection = Connect();
    const auto source = Open(*connection);
    for (Batch batch; Next(*source, batch);) {
      EXPECT_FALSE(batch.goes_beyond);
      positions.push_back(batch.position);
      auto& names = batches.emplace_back();
      for (const Entry& entry : batch.entries) {
        EXPECT_EQ(entry.payload, "vvvvvvvvvv");
        names.emplace_back(entry.db, entry.key);
      }
    }
  }
  EXPECT_EQ(Calls("scan"), scans);
  size_t left = 800;
  for (size_t i = 0; i < positions.size(); ++i) {
    left -= batches[i].size();
    for (const ListedNames* names :
         {static_cast<const ListedNames*>(&listed), static_cast<const ListedNames*>(nullptr)}) {
      options_.listed = names;
      const auto connection = Connect();
      const auto rest = ReadAll(*Open(*connection, positions[i]));
      EXPECT_EQ(rest.size(), left) << positions[i];
      for (size_t later = i + 1; later < batches.size(); ++later)
        for (const Name& name : batches[later]) ASSERT_EQ(rest.count(name), 1U) << name.second;
    }
  }
  EXPECT_EQ(left, 0U);

  // The position of a batch that ends within the first page is where that page begins.
  options_.listed = &listed;
  options_.batch_bytes = 30;
  const auto connection = Connect();
  Batch first;
  ASSERT_TRUE(Next(*Open(*connection), first));
  EXPECT_TRUE(first.goes_beyond);
  const auto again = Connect();
  EXPECT_EQ(ReadAll(*Open(*again, first.position)).size(), 800U);
}

// A position is stored now and then where few names are wanted.
TEST_F(ScanResumeTest, FewWantedNamesDoNotKeepBatchesFromEnding) {
  Populate(200000);
  filter_.decide = [](int, Bytes key) { return key.back() == '7' ? Interest::kRead : Interest::kIgnore; };
  options_.batch_keys = 50000;
  options_.batch_names = 10000;
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch first;
  ASSERT_TRUE(Next(*source, first));
  EXPECT_LT(Calls("scan"), 150);  // of 200
  EXPECT_EQ(first.entries.size() + ReadAll(*source).size(), 20000U);
}

TEST_F(ScanResumeTest, TheEndStaysTheEnd) {
  Populate(100);
  const auto connection = Connect();
  std::string position;
  {
    const auto source = Open(*connection);
    for (Batch batch; Next(*source, batch);) position = batch.position;
  }
  const auto source = Open(*connection, position);
  Batch batch;
  EXPECT_FALSE(Next(*source, batch));
  EXPECT_EQ(batch.position, position);
}

TEST_F(ScanResumeTest, ARestartOfTheServerStartsAgain) {
  Populate(5000);
  options_.batch_keys = 1000;
  std::string position;
  {
    const auto connection = Connect();
    const auto source = Open(*connection);
    Batch batch;
    ASSERT_TRUE(Next(*source, batch));
    position = batch.position;
  }
  client_.Command({"SAVE"});
  server_.Restart();
  const auto connection = Connect();
  const auto source = Open(*connection, position);
  EXPECT_TRUE(source->restarted());
  EXPECT_EQ(ReadAll(*source).size(), 5000U);
}

TEST_F(ScanResumeTest, WithoutInfoEveryResumeStartsAgain) {
  Populate(3000);
  client_.Command({"ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@all", "-info"});
  connection_options_.username = "reader";
  connection_options_.password = "s3cret";
  options_.batch_keys = 1000;
  const auto first_connection = Connect();
  const auto first = Open(*first_connection);
  EXPECT_FALSE(first->restarted());
  Batch batch;
  ASSERT_TRUE(Next(*first, batch));
  const auto connection = Connect();
  const auto source = Open(*connection, batch.position);
  EXPECT_TRUE(source->restarted());
  EXPECT_EQ(ReadAll(*source).size(), 3000U);
}

TEST_F(ScanResumeTest, AForbiddenKeyIsAnErrorThatNamesIt) {
  client_.Command({"SET", "app:1", "v"});
  client_.Command({"SET", "other\n1", "v"});
  client_.Command({"ACL", "SETUSER", "reader", "on", ">s3cret", "~app:*", "+@all"});
  connection_options_.username = "reader";
  connection_options_.password = "s3cret";
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  for (int i = 0; i < 2; ++i) {  // and again when asked again
    const auto next = source->Next(batch);
    ASSERT_FALSE(next.ok());
    EXPECT_EQ(next.error().code, ErrorCode::kPermissionDenied);
    EXPECT_NE(next.error().detail.find("Database 0, key \"other\\x0a1\"."), std::string::npos)
        << next.error().detail;
  }

  // The user needs no right to keys that the filter leaves out.
  filter_.decide = [](int, Bytes key) {
    return key.substr(0, 4) == "app:" ? Interest::kRead : Interest::kIgnore;
  };
  const auto second_connection = Connect();
  const auto entries = ReadAll(*Open(*second_connection));
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries.begin()->second.state, EntryState::kRead);
}

TEST_F(ScanResumeTest, ALostConnectionEndsTheSource) {
  Populate(50000);
  options_.batch_keys = 1000;
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  ASSERT_TRUE(Next(*source, batch));
  server_.Kill();
  for (int i = 0;; ++i) {
    ASSERT_LT(i, 50);
    const auto next = source->Next(batch);
    if (next.ok()) continue;
    EXPECT_EQ(next.error().code, ErrorCode::kConnectionFailure);
    break;
  }
  EXPECT_FALSE(source->Next(batch).ok());
}

TEST_F(ScanResumeTest, AnInterruptEndsTheSourceAndNothingIsLost) {
  class InterruptedWaiter : public test::PollWaiter {
   public:
    int Wait(redis::WaitSocket* sockets, size_t count, long timeout_ms) override {
      if (waits_left-- == 0) throw std::runtime_error("interrupted");
      return PollWaiter::Wait(sockets, count, timeout_ms);
    }
    int waits_left = -1;
  };
  Populate(20000);
  options_.batch_keys = 1000;
  options_.bytes_in_flight = 65536;  // so that there are waits
  InterruptedWaiter waiter;
  std::map<Name, Entry> entries;
  std::string position;
  int interrupts = 0;
  for (bool more = true; more;) {
    const auto connection = Connect(waiter);
    const auto source = Open(*connection, position);
    EXPECT_FALSE(source->restarted());
    waiter.waits_left = interrupts;
    Batch batch;
    try {
      while ((more = Next(*source, batch))) {
        for (Entry& entry : batch.entries) entries.insert_or_assign({entry.db, entry.key}, std::move(entry));
        position = batch.position;
      }
    } catch (const std::runtime_error& error) {
      ASSERT_STREQ(error.what(), "interrupted");
      ++interrupts;
      waiter.waits_left = -1;
      EXPECT_FALSE(source->Next(batch).ok());
    }
  }
  EXPECT_GT(interrupts, 2);
  EXPECT_EQ(entries.size(), 20000U);
}

TEST_F(ScanResumeTest, AnExceptionOfTheFilterEndsTheSource) {
  Populate(3000);
  filter_.decide = [&](int, Bytes) {
    if (filter_.classified == 1500) throw std::runtime_error("filter");
    return Interest::kRead;
  };
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  EXPECT_THROW((void)source->Next(batch), std::runtime_error);
  EXPECT_FALSE(source->Next(batch).ok());
}

}  // namespace
}  // namespace prm::source
