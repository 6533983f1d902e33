// The connection of its own over which a scan asks for names.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <optional>
#include <string>

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
