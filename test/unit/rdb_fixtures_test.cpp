// Compares files of every version with their descriptions, in a folder that PRM_RDB_FIXTURES names. Its
// README.md has a table of the files: header, numbers of keys, types and codes, and where their contents are
// described.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "lib/cpp/json.h"
#include "lib/cpp/rdb_file.h"
#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"

namespace prm::rdb {
namespace {

using test::FileContents;
using test::FileEntry;
using test::Json;
using test::Row;
using test::Rows;

struct Fixture {
  std::string file;
  std::string header;
  uint64_t keys = 0;
  uint64_t with_expiry = 0;
  std::string types;
  std::string expected;
};

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    const size_t begin = part.find_first_not_of(' ');
    parts.push_back(begin == std::string::npos ? ""
                                               : part.substr(begin, part.find_last_not_of(' ') - begin + 1));
  }
  return parts;
}

std::vector<Fixture> FixtureTable(const std::string& directory) {
  std::vector<Fixture> fixtures;
  std::istringstream readme(test::Slurp(directory + "/README.md"));
  for (std::string line; std::getline(readme, line);) {
    const std::vector<std::string> cells = Split(line, '|');
    if (cells.size() < 8 || cells[1].find(".rdb") == std::string::npos) continue;
    fixtures.push_back({cells[1], cells[2], std::stoul(cells[3]), std::stoul(cells[4]), cells[5], cells[7]});
  }
  return fixtures;
}

// The types of a file's keys, as "STRING:3,LIST:1". The table also counts the nodes of lists and streams.
std::map<std::string, uint64_t> TypesOfTable(const std::string& text) {
  std::map<std::string, uint64_t> types;
  for (const std::string& part : Split(text, ',')) {
    const size_t colon = part.find(':');
    const std::string name = part.substr(0, colon);
    if (name.empty() || name.rfind("ql_", 0) == 0 || name == "cgroups") continue;
    types[name] += std::stoul(part.substr(colon + 1));
  }
  return types;
}

std::map<std::string, uint64_t> TypesOfFile(const FileContents& contents) {
  std::map<std::string, uint64_t> types;
  for (const auto& [name, entry] : contents.keys) ++types[entry.key.type.name];
  return types;
}

void AddStreamRows(const Json& stream, Rows& rows) {
  const auto& of = stream.members;
  for (const Json& entry : of.at("entries").items) {
    Row row = {"entry", entry.members.at("id").text};
    for (const auto& [field, value] : entry.members.at("items").members) {
      row.push_back(field);
      row.push_back(value.text);
    }
    rows.push_back(row);
  }
  rows.push_back({"info", of.at("length").text, of.at("lastID").text, of.at("firstID").text,
                  of.at("maxDelEntryID").text, of.at("entriesAdded").text});
  for (const Json& group : of.at("groups").items) {
    const std::string& name = group.members.at("name").text;
    rows.push_back({"group", name, group.members.at("lastid").text, group.members.at("entriesRead").text});
    std::map<std::string, std::pair<std::string, std::string>> deliveries;
    for (const Json& pending : group.members.at("pending").items) {
      deliveries[pending.members.at("id").text] = {pending.members.at("sent").text,
                                                   pending.members.at("count").text};
    }
    for (const Json& consumer : group.members.at("consumers").items) {
      const auto pending = consumer.members.find("pending");
      const size_t count = pending == consumer.members.end() ? 0 : pending->second.items.size();
      const std::string& consumer_name = consumer.members.at("name").text;
      rows.push_back(
          {"consumer", name, consumer_name, consumer.members.at("seenTime").text, std::to_string(count)});
      for (size_t i = 0; i < count; ++i) {
        const std::string& id = pending->second.items[i].members.at("id").text;
        rows.push_back(
            {"pending", name, consumer_name, id, deliveries.at(id).first, deliveries.at(id).second});
      }
    }
  }
}

// The value as rows, by the type that the file gives it.
Rows RowsOf(const Json& value, ValueType type) {
  Rows rows;
  for (const Json& item : value.items) rows.push_back({item.text});
  if (type == ValueType::kString) rows = {{value.text}};
  if (type == ValueType::kModule) rows = {{"test__rdb"}};
  if (type == ValueType::kStream) {
    AddStreamRows(value, rows);
  } else {
    for (const auto& [field, text] : value.members) {
      rows.push_back({field, type == ValueType::kZset
                                 ? test::ExactScore(std::strtod(text.text.c_str(), nullptr))
                                 : text.text});
    }
  }
  if (type == ValueType::kSet || type == ValueType::kZset || type == ValueType::kHash) {
    std::sort(rows.begin(), rows.end());
  }
  return rows;
}

// The descriptions know nothing of the expiry of fields, nor of the sign of zero.
Rows Described(Rows rows, ValueType type) {
  for (Row& row : rows) {
    if (type == ValueType::kHash) row.resize(2);
    if (type == ValueType::kZset && row[1] == test::ExactScore(-0.0)) row[1] = test::ExactScore(0);
  }
  return rows;
}

void ExpectDescribed(const Json& description, int db, const FileContents& contents) {
  uint64_t described = 0;
  for (const auto& [name, value] : description.members) {
    if (name == "__aux__") {
      for (const auto& [field, text] : value.members) EXPECT_EQ(contents.notes.aux.at(field), text.text);
      continue;
    }
    if (name == "__func__") EXPECT_EQ(contents.notes.functions, value.members.size());
    if (name.rfind("__", 0) == 0) continue;
    SCOPED_TRACE(name);
    ++described;
    const auto found = contents.keys.find({db, name});
    ASSERT_NE(found, contents.keys.end());
    const FileEntry& entry = found->second;
    EXPECT_EQ(Described(entry.rows, entry.key.type.value), RowsOf(value, entry.key.type.value));
  }
  uint64_t in_db = 0;
  for (const auto& [name, entry] : contents.keys) in_db += name.first == db ? 1 : 0;
  EXPECT_EQ(described, in_db);
}

class RdbFixtures : public testing::Test {
 protected:
  void SetUp() override {
    const char* const directory = std::getenv("PRM_RDB_FIXTURES");
    if (directory == nullptr) GTEST_SKIP() << "PRM_RDB_FIXTURES is not set";
    directory_ = directory;
  }
  std::string directory_;
};

TEST_F(RdbFixtures, EveryFileDecodesToItsDescription) {
  const std::vector<Fixture> fixtures = FixtureTable(directory_);
  ASSERT_FALSE(fixtures.empty());
  for (const Fixture& fixture : fixtures) {
    SCOPED_TRACE(fixture.file);
    const std::string bytes = test::Slurp(directory_ + "/" + fixture.file);
    const FileContents contents = test::ReadFile(bytes);
    std::printf("| %s | %s | %s |\n", fixture.file.c_str(), fixture.header.c_str(),
                contents.status.ok() ? (std::to_string(contents.key_count) + " keys").c_str()
                                     : ("refused: " + contents.status.error().message).c_str());
    if (fixture.expected == "refused: version") {
      ASSERT_FALSE(contents.status.ok());
      EXPECT_EQ(contents.status.error().code, ErrorCode::kUnsupported);
      EXPECT_NE(contents.status.error().message.find("version 99"), std::string::npos);
      continue;
    }
    EXPECT_EQ(contents.key_count, fixture.keys);
    EXPECT_EQ(TypesOfFile(contents), TypesOfTable(fixture.types));
    if (fixture.expected == "refused: checksum") {
      ASSERT_FALSE(contents.status.ok());
      EXPECT_EQ(contents.status.error().code, ErrorCode::kCorruptData);
      EXPECT_NE(contents.status.error().message.find("checksum"), std::string::npos);
      continue;
    }
    ASSERT_TRUE(contents.status.ok())
        << contents.status.error().message << " " << contents.status.error().detail;
    EXPECT_EQ((contents.header.valkey ? "VALKEY0" : "REDIS00") +
                  std::string(contents.header.version < 10 ? "0" : "") +
                  std::to_string(contents.header.version),
              fixture.header);
    uint64_t with_expiry = 0;
    for (const auto& [name, entry] : contents.keys) with_expiry += entry.key.expires_at_ms ? 1 : 0;
    EXPECT_EQ(with_expiry, fixture.with_expiry);
    const size_t quote = fixture.expected.find('`');
    if (quote == std::string::npos) continue;
    const std::string name = fixture.expected.substr(quote + 1, fixture.expected.rfind('`') - quote - 1);
    const Json description = test::ParseJson(test::Slurp(directory_ + "/librdb/" + name));
    if (description.kind == Json::kArray) {
      for (size_t db = 0; db < description.items.size(); ++db) {
        ExpectDescribed(description.items[db], static_cast<int>(db), contents);
      }
    } else if (name != "set_expired.json") {  // which describes what is left when the key is gone
      ExpectDescribed(description, contents.keys.empty() ? 0 : contents.keys.begin()->first.first, contents);
    }
  }
}

// Compares dump files with the payloads that DUMP gave for the same keys.
TEST_F(RdbFixtures, FilesHoldWhatDumpGave) {
  const Json databases =
      test::ParseJson(test::Slurp(directory_ + "/redis-7.0.15/all_types_v10.dump_payloads.json"));
  for (const std::string name : {"all_types_v10", "all_types_v10_allkeys-lfu", "all_types_v10_allkeys-lru",
                                 "all_types_v10_nocompress"}) {
    SCOPED_TRACE(name);
    const FileContents contents = test::ReadFile(test::Slurp(directory_ + "/redis-7.0.15/" + name + ".rdb"));
    ASSERT_TRUE(contents.status.ok());
    EXPECT_EQ(contents.notes.checksum, true);
    EXPECT_EQ(contents.notes.functions, 2u);
    uint64_t compared = 0;
    for (const auto& [db, keys] : databases.members) {
      for (const auto& [key, hex] : keys.members) {
        if (hex.text == "null") continue;
        std::string payload;
        for (size_t i = 0; i < hex.text.size(); i += 2) {
          payload.push_back(static_cast<char>(std::stoi(hex.text.substr(i, 2), nullptr, 16)));
        }
        const Result<Rows> rows = test::DecodedRows(payload);
        ASSERT_TRUE(rows.ok()) << key;
        EXPECT_EQ(contents.keys.at({std::stoi(db), key}).rows, rows.value()) << key;
        ++compared;
      }
    }
    EXPECT_GE(compared, 60u);
    for (const auto& [key, entry] : contents.keys) {
      EXPECT_EQ(entry.key.frequency.has_value(), name == "all_types_v10_allkeys-lfu");
      EXPECT_EQ(entry.key.idle_seconds.has_value(), name == "all_types_v10_allkeys-lru");
    }
  }
}

// Every border of the reader's window, and every place to stop at.
TEST_F(RdbFixtures, PiecesAndPlacesChangeNothing) {
  for (const Fixture& fixture : FixtureTable(directory_)) {
    SCOPED_TRACE(fixture.file);
    const std::string bytes = test::Slurp(directory_ + "/" + fixture.file);
    if (fixture.expected.rfind("refused", 0) == 0) continue;
    const FileContents whole = test::ReadFile(bytes);
    const FileContents pieces = test::ReadFile(bytes, 7);
    ASSERT_EQ(pieces.key_count, whole.key_count);
    for (const auto& [name, entry] : whole.keys) EXPECT_EQ(pieces.keys.at(name).rows, entry.rows);

    const uint64_t keys = test::ReadPlaceByPlace(bytes, [&](FileReader& reader) {
      EXPECT_EQ(whole.keys.count({reader.key().db, reader.key().name}), 1u);
      EXPECT_TRUE(reader.SkipValue().ok());
    });
    EXPECT_EQ(keys, whole.key_count);
  }
}

TEST_F(RdbFixtures, TruncatedFilesAreErrors) {
  for (const Fixture& fixture : FixtureTable(directory_)) {
    SCOPED_TRACE(fixture.file);
    const std::string bytes = test::Slurp(directory_ + "/" + fixture.file);
    if (bytes.size() > 3000) continue;
    for (size_t size = 0; size < bytes.size(); ++size) {
      ASSERT_FALSE(test::ReadFile(bytes.substr(0, size)).status.ok()) << size;
    }
  }
}

}  // namespace
}  // namespace prm::rdb
