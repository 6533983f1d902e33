// The connection of its own over which a scan asks for names.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "lib/cpp/hostile_redis.h"
#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

class ScanNamesTest : public test::ScanFixture {
 protected:
  // The id of the client whose last command was SCAN.
  std::string NamesLink() {
    const std::string clients = client_.String({"CLIENT", "LIST"});
    const size_t at = clients.find(" cmd=scan ");
    if (at == std::string::npos) return "";
    const size_t line = clients.rfind("id=", at) + 3;
    return clients.substr(line, clients.find(' ', line) - line);
  }

  // As ReadAll, for a caller that is busy between batches and lets the source proceed so often.
  std::map<test::Name, Entry> ReadProceeding(Source& source, int proceeds) {
    std::map<test::Name, Entry> entries;
    for (Batch batch; Next(source, batch);) {
      Take(batch, entries);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      for (int i = 0; i < proceeds; ++i) source.Proceed();
    }
    return entries;
  }
};

TEST_F(ScanNamesTest, NamesComeInShortSteps) {
  Populate(6000);
  options_.scan_count = 4500;
  const auto connection = Connect();
  const auto source = Open(*connection);
  EXPECT_TRUE(source->has_names_link());
  EXPECT_EQ(ReadAll(*source).size(), 6000U);
  EXPECT_GE(Calls("scan"), 5);  // a step may be longer by what a bucket holds
}

// A next run is to have the same batches, however often it lets the source proceed.
TEST_F(ScanNamesTest, PagesAreTheSameWhateverTheirSteps) {
  Populate(8000);
  options_.batch_keys = 500;
  options_.scan_count = 450;
  std::vector<std::string> cursors;
  options_.end_page = [&](const std::string& cursor) { cursors.push_back(cursor); };
  // Reads all while it lets the source proceed so often between batches. Returns the steps for each page.
  const auto steps = [&](int proceeds) {
    cursors.clear();
    const long before = Calls("scan");
    const auto connection = Connect();
    EXPECT_EQ(ReadProceeding(*Open(*connection), proceeds).size(), 8000U);
    return static_cast<double>(Calls("scan") - before) / static_cast<double>(cursors.size());
  };
  EXPECT_EQ(steps(0), 1);
  const std::vector<std::string> long_steps = cursors;
  options_.lets_proceed = true;
  EXPECT_GT(steps(1000), 4);
  EXPECT_EQ(cursors, long_steps);
  EXPECT_LT(steps(0), 4);  // short for the first batches, until it is clear that the caller is busy elsewhere
  EXPECT_EQ(cursors, long_steps);
}

// So that the position moves on where there are many buckets and few names.
TEST_F(ScanNamesTest, AStepWithFewNamesEndsThePage) {
  Populate(20);
  test::HostileRedis sparse(
      [](const Arguments& arguments) -> std::optional<test::HostileRedis::Answer> {
        if (test::HostileRedis::NameOf(arguments) != "SCAN") return std::nullopt;
        const int number = std::stoi(arguments[1]);
        const std::string cursor = number == 19 ? "0" : std::to_string(number + 1);
        const std::string name = "key:" + std::to_string(number);
        return test::HostileRedis::Answer{"*2\r\n$" + std::to_string(cursor.size()) + "\r\n" + cursor +
                                          "\r\n*1\r\n$" + std::to_string(name.size()) + "\r\n" + name +
                                          "\r\n"};
      },
      server_.port());
  connection_options_.port = sparse.port();
  int pages = 0;
  options_.end_page = [&](const std::string&) { ++pages; };
  const auto connection = Connect();
  const auto source = Open(*connection);
  EXPECT_TRUE(source->has_names_link());
  EXPECT_EQ(ReadAll(*source).size(), 20U);
  EXPECT_EQ(pages, 20);
}

TEST_F(ScanNamesTest, ValuesOfTwoBatchesAreAskedForAhead) {
  Populate(8000);
  options_.batch_keys = 500;
  options_.scan_count = 450;
  options_.lets_proceed = true;
  const auto connection = Connect();
  const auto source = Open(*connection);
  std::map<test::Name, Entry> entries;
  for (Batch batch; Next(*source, batch);) {
    Take(batch, entries);
    for (int i = 0; i < 200; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      source->Proceed();
    }
    EXPECT_LE(static_cast<size_t>(Calls("getrange")), entries.size() + 2 * options_.batch_keys + 1);
  }
  EXPECT_EQ(entries.size(), 8000U);
}

TEST_F(ScanNamesTest, NamesComeMeanwhile) {
  Populate(8000);
  options_.batch_keys = 500;
  options_.scan_count = 450;
  options_.lets_proceed = true;
  const auto connection = Connect();
  const auto source = Open(*connection);
  std::map<test::Name, Entry> entries;
  long meanwhile = 0;
  for (Batch batch; Next(*source, batch);) {
    Take(batch, entries);
    const long before = Calls("scan");
    for (int i = 0; i < 100; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      source->Proceed();
    }
    meanwhile += Calls("scan") - before;
  }
  EXPECT_EQ(entries.size(), 8000U);
  EXPECT_GT(meanwhile, 0);
}

// Where few names are wanted a batch is returned when it has batch_names, and no more than as many are read
// ahead, also if the answers to SCAN come faster than they are looked at.
TEST_F(ScanNamesTest, NamesThatAreNotWantedAreNotReadFarAhead) {
  Populate(8000);
  filter_.decide = [](int, Bytes key) { return key == "key:1" ? Interest::kRead : Interest::kIgnore; };
  options_.scan_count = 50;
  options_.batch_names = 500;
  int pages = 0;
  options_.end_page = [&](const std::string&) {
    ++pages;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  for (const bool has_link : {true, false}) {
    const auto connection = Connect();
    if (!has_link) client_.Command({"CONFIG", "SET", "maxclients", "2"});
    const auto source = Open(*connection);
    ASSERT_EQ(source->has_names_link(), has_link);
    pages = 0;
    int batches = 0;
    size_t entries = 0;
    for (Batch batch; Next(*source, batch); entries += batch.entries.size())
      EXPECT_LE(pages, 10 * (++batches + 1) + 1);
    EXPECT_EQ(entries, 1U);
    EXPECT_GE(batches, 14);  // a page may be longer by what a bucket holds
  }
}

TEST_F(ScanNamesTest, FewNamesAreAskedForWhereThatIsWanted) {
  Populate(600);
  options_.scan_count = 20;
  const auto connection = Connect();
  EXPECT_EQ(ReadAll(*Open(*connection)).size(), 600U);
  EXPECT_GE(Calls("scan"), 20);
}

TEST_F(ScanNamesTest, SeveralDatabases) {
  for (const char* db : {"0", "3", "7"}) {
    client_.Command({"SELECT", db});
    Populate(1000);
  }
  options_.databases = {0, 3, 5, 7};
  const auto connection = Connect();
  EXPECT_EQ(ReadAll(*Open(*connection)).size(), 3000U);
}

TEST_F(ScanNamesTest, AServerThatTakesNoSecondConnectionIsScannedOverTheFirst) {
  Populate(2000);
  const auto connection = Connect();
  client_.Command({"CONFIG", "SET", "maxclients", "2"});
  const auto source = Open(*connection);
  EXPECT_FALSE(source->has_names_link());
  EXPECT_EQ(ReadAll(*source).size(), 2000U);
}

// As where a server closes what was idle for its `timeout`.
TEST_F(ScanNamesTest, AConnectionThatIsClosedIsDoneWithout) {
  Populate(6000);
  options_.batch_keys = 300;
  const auto connection = Connect();
  const auto source = Open(*connection);
  std::map<test::Name, Entry> entries;
  Batch batch;
  for (int i = 0; i < 3 && Next(*source, batch); ++i) Take(batch, entries);
  ASSERT_NE(NamesLink(), "");
  client_.Command({"CLIENT", "KILL", "ID", NamesLink()});
  while (Next(*source, batch)) Take(batch, entries);
  EXPECT_EQ(entries.size(), 6000U);
  EXPECT_FALSE(source->has_names_link());
}

// Behind a proxy each connection may lead to another server.
TEST_F(ScanNamesTest, NamesOfAnotherServerAreNotAskedFor) {
  Populate(1000);
  std::atomic<int> infos = 0;
  test::HostileRedis proxy(
      [&](const Arguments& arguments) -> std::optional<test::HostileRedis::Answer> {
        if (test::HostileRedis::NameOf(arguments) != "INFO" || ++infos != 2) return std::nullopt;
        const std::string text = "run_id:" + std::string(40, 'b') + "\r\n";
        return test::HostileRedis::Answer{"$" + std::to_string(text.size()) + "\r\n" + text + "\r\n"};
      },
      server_.port());
  connection_options_.port = proxy.port();
  const auto connection = Connect();
  const auto source = Open(*connection);
  EXPECT_FALSE(source->has_names_link());
  EXPECT_EQ(ReadAll(*source).size(), 1000U);
}

}  // namespace
}  // namespace prm::source
