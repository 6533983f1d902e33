// Files and payloads of Redis 8 and Valkey in test/data/rdb against what their servers say of them: each .rdb
// has a .json of the same name, and often payloads in .dump_payloads.json.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/cpp/json.h"
#include "lib/cpp/rdb_file.h"
#include "lib/cpp/rdb_rows.h"
#include "rdb/dump.h"

namespace prm::rdb {
namespace {

using test::FileContents;
using test::Json;
using test::Row;
using test::Rows;

std::string TextOf(const Json& object, const std::string& name) {
  const auto found = object.members.find(name);
  return found == object.members.end() ? "" : found->second.text;
}

Rows PairRows(const Json& value) {
  Rows rows;
  for (const Json& pair : value.items) rows.push_back({pair.items.at(0).text, pair.items.at(1).text});
  return rows;
}

Rows HashRows(const Json& key) {
  const auto expiries = key.members.find("field_pexpiretime");
  Rows rows;
  for (const auto& [field, value] : key.members.at("value").members) {
    Row row = {field, value.text};
    if (expiries != key.members.end() && expiries->second.members.count(field) > 0)
      row.push_back(expiries->second.members.at(field).text);
    rows.push_back(row);
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

Rows StreamRows(const Json& key) {
  Rows rows;
  for (const Json& entry : key.members.at("value").items) {
    Row row = {"entry", entry.items.at(0).text};
    for (const Json& text : entry.items.at(1).items) row.push_back(text.text);
    rows.push_back(row);
  }
  const auto& info = key.members.at("xinfo_full").members;
  rows.push_back({"info", info.at("length").text, info.at("last-generated-id").text,
                  info.at("recorded-first-entry-id").text, info.at("max-deleted-entry-id").text,
                  info.at("entries-added").text});
  for (const Json& group : info.at("groups").items) {
    const std::string name = TextOf(group, "name");
    const std::string read = TextOf(group, "entries-read");
    rows.push_back({"group", name, TextOf(group, "last-delivered-id"), read == "null" ? "-1" : read});
    for (const Json& consumer : group.members.at("consumers").items) {
      rows.push_back({"consumer", name, TextOf(consumer, "name"), TextOf(consumer, "seen-time"),
                      TextOf(consumer, "pel-count")});
      for (const Json& pending : consumer.members.at("pending").items)
        rows.push_back({"pending", name, TextOf(consumer, "name"), pending.items.at(0).text,
                        pending.items.at(1).text, pending.items.at(2).text});
    }
    for (const Json& pending : group.members.at("pending").items)
      if (pending.items.at(1).text.empty())
        rows.push_back({"pending", name, "", pending.items.at(0).text, pending.items.at(2).text,
                        pending.items.at(3).text});
  }
  return rows;
}

Rows RowsOf(const Json& key) {
  const std::string type = TextOf(key, "type");
  const Json& value = key.members.at("value");
  Rows rows;
  if (type == "string") return {{value.text}};
  if (type == "hash") return HashRows(key);
  if (type == "stream") return StreamRows(key);
  if (type == "array") return PairRows(value);
  if (type == "vectorset") return {{"vectorset"}};
  if (type == "zset") {
    for (const Json& pair : value.items)
      rows.push_back(
          {pair.items.at(0).text, test::ExactScore(std::strtod(pair.items.at(1).text.c_str(), nullptr))});
  } else {
    for (const Json& item : value.items) rows.push_back({item.text});
  }
  if (type != "list") std::sort(rows.begin(), rows.end());
  return rows;
}

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

class RdbNewerFixtures : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto& file :
         std::filesystem::recursive_directory_iterator(PRM_REPOSITORY_DIR "/test/data/rdb"))
      if (file.path().extension() == ".rdb") files_.push_back(file.path().string());
    std::sort(files_.begin(), files_.end());
    ASSERT_GE(files_.size(), 20u);
  }

  static Json DescriptionOf(const std::string& file) {
    return test::ParseJson(test::Slurp(file.substr(0, file.size() - 4) + ".json"));
  }
  static bool IsRefused(const std::string& file) {
    return TextOf(DescriptionOf(file), "note").find("must be refused") != std::string::npos;
  }
  static bool IsOfTheFuture(const std::string& file) { return file.find("_v16") != std::string::npos; }

  std::vector<std::string> files_;
};

TEST_F(RdbNewerFixtures, EveryFileDecodesToWhatItsServerSaid) {
  for (const std::string& file : files_) {
    SCOPED_TRACE(file);
    const Json description = DescriptionOf(file);
    const FileContents contents = test::ReadFile(test::Slurp(file), 7);
    if (IsRefused(file) || IsOfTheFuture(file)) {
      ASSERT_FALSE(contents.status.ok());
      EXPECT_EQ(contents.status.error().code,
                IsRefused(file) ? ErrorCode::kCorruptData : ErrorCode::kUnsupported);
      continue;
    }
    ASSERT_TRUE(contents.status.ok())
        << contents.status.error().message << " " << contents.status.error().detail;
    uint64_t described = 0;
    for (const auto& [db, keys] : description.members.at("dbs").members) {
      for (const auto& [name, key] : keys.members) {
        SCOPED_TRACE(name);
        ++described;
        const auto found = contents.keys.find({std::stoi(db), name});
        ASSERT_NE(found, contents.keys.end());
        EXPECT_EQ(found->second.rows, RowsOf(key));
        const std::string expiry = TextOf(key, "pexpiretime");
        EXPECT_EQ(found->second.key.expires_at_ms.has_value(), !expiry.empty());
        if (!expiry.empty()) EXPECT_EQ(std::to_string(*found->second.key.expires_at_ms), expiry);
      }
    }
    EXPECT_EQ(described, contents.key_count);
  }
}

TEST_F(RdbNewerFixtures, EveryPayloadDecodesToWhatItsServerSaid) {
  uint64_t compared = 0;
  for (const std::string& file : files_) {
    SCOPED_TRACE(file);
    const std::string payloads = file.substr(0, file.size() - 4) + ".dump_payloads.json";
    if (!std::filesystem::exists(payloads)) continue;
    const Json description = DescriptionOf(file);
    const Json databases = test::ParseJson(test::Slurp(payloads));
    for (const auto& [db, keys] : databases.members) {
      for (const auto& [name, hex] : keys.members) {
        if (hex.text == "null") continue;
        SCOPED_TRACE(name);
        const std::string payload = FromHex(hex.text);
        EXPECT_TRUE(CanDecodeDump(payload));
        const Result<Rows> rows = test::DecodedRows(payload);
        ASSERT_TRUE(rows.ok()) << rows.error().message;
        EXPECT_EQ(rows.value(), RowsOf(description.members.at("dbs").members.at(db).members.at(name)));
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 75u);
}

// A reader that resumes in the middle of a file knows the templates before that place.
TEST_F(RdbNewerFixtures, EveryPlaceIsGoodToGoOnFrom) {
  for (const std::string& file : files_) {
    SCOPED_TRACE(file);
    if (IsRefused(file) || IsOfTheFuture(file)) continue;
    const std::string bytes = test::Slurp(file);
    const FileContents whole = test::ReadFile(bytes);
    const uint64_t keys = test::ReadPlaceByPlace(bytes, [&](FileReader& reader) {
      std::string payload;
      uint64_t size = 0;
      EXPECT_TRUE(reader.TakePayload(SIZE_MAX, payload, size).ok());
      const auto found = whole.keys.find({reader.key().db, reader.key().name});
      ASSERT_NE(found, whole.keys.end());
      EXPECT_EQ(payload, found->second.payload);
    });
    EXPECT_EQ(keys, whole.key_count);
  }
}

TEST_F(RdbNewerFixtures, TruncatedFilesAreErrors) {
  for (const std::string& file : files_) {
    SCOPED_TRACE(file);
    const std::string bytes = test::Slurp(file);
    if (bytes.size() > 1500) continue;
    for (size_t size = 0; size < bytes.size(); ++size)
      ASSERT_FALSE(test::ReadFile(bytes.substr(0, size)).status.ok()) << size;
  }
}

}  // namespace
}  // namespace prm::rdb
