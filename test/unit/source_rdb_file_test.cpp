// Keys of a dump file in batches: positions, filters, expiries, limits, damage.
#include "source/rdb_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "lib/cpp/rdb_builders.h"
#include "lib/cpp/rdb_file.h"

namespace prm::source {
namespace {

using std::string_literals::operator""s;
using test::FileKeyBytes;
using test::FramedFile;

uint64_t RouteOf(Bytes key) { return std::hash<Bytes>()(key); }

// Reads everything but what is named in `interests`.
class NameFilter : public KeyFilter {
 public:
  std::map<std::string, Interest> interests;
  std::vector<std::string> asked;
  KeyDecision Classify(int, Bytes key) override {
    asked.emplace_back(key);
    const auto found = interests.find(std::string(key));
    return {found == interests.end() ? Interest::kRead : found->second, RouteOf(key)};
  }
};

// Twenty strings in two databases; one expires at 2000 ms.
std::string SampleFile() {
  std::string body = "\xfe\x00"s;
  for (int i = 0; i < 20; ++i) {
    if (i == 10) body += "\xfe\x05"s;
    if (i == 4) body += "\xfc"s + test::LittleEndian(2000, 8);
    body += FileKeyBytes(0, "key" + std::to_string(i), test::String("value" + std::to_string(i)));
  }
  return FramedFile("REDIS0011", body);
}

struct Outcome {
  std::vector<std::string> keys;  // "0/key0" with a mark for what is not kRead
  std::vector<std::string> positions;
  Status status;
};

Outcome ReadAll(ByteSource& file, const RdbFileOptions& options, KeyFilter& filter,
                const std::string& position = "") {
  Outcome outcome;
  auto source = RdbFileSource::Open(file, options, filter, position);
  if (!source.ok()) {
    outcome.status = source.error();
    return outcome;
  }
  for (;;) {
    Batch batch;
    const Result<bool> next = source.value()->Next(batch);
    if (!next.ok()) outcome.status = next.error();
    if (!next.ok() || !next.value()) return outcome;
    EXPECT_FALSE(batch.goes_beyond);
    for (const Entry& entry : batch.entries) {
      static const std::map<EntryState, std::string> kMarks = {{EntryState::kRead, ""},
                                                               {EntryState::kExpired, " expired"},
                                                               {EntryState::kNameOnly, " name"},
                                                               {EntryState::kTooLarge, " large"}};
      EXPECT_EQ(entry.route, RouteOf(entry.key));
      outcome.keys.push_back(std::to_string(entry.db) + "/" + entry.key + kMarks.at(entry.state));
    }
    outcome.positions.push_back(batch.position);
  }
}

TEST(RdbFileSource, ReadsEveryKeyOnceInBatches) {
  test::MemorySource file(SampleFile());
  NameFilter filter;
  RdbFileOptions options;
  const Outcome whole = ReadAll(file, options, filter);
  ASSERT_TRUE(whole.status.ok());
  ASSERT_EQ(whole.keys.size(), 20u);
  EXPECT_EQ(whole.keys.front(), "0/key0");
  EXPECT_EQ(whole.keys.back(), "5/key19");
  for (const size_t batch_keys : {1, 3, 19, 20, 21}) {
    options.batch_keys = batch_keys;
    const Outcome batches = ReadAll(file, options, filter);
    EXPECT_EQ(batches.keys, whole.keys);
    EXPECT_GE(batches.positions.size(), 20 / batch_keys);
  }
  options.batch_keys = 1000;
  options.batch_bytes = 1;
  EXPECT_EQ(ReadAll(file, options, filter).positions.size(), 20u) << "one entry at least, whatever its size";
}

// Values as GETRANGE returns them, so that no payload has to be made and checked.
TEST(RdbFileSource, ShortStringsComePlain) {
  const std::string compressed = "\xc3\x06\x0b" +
                                 "\x01"
                                 "ab"
                                 "\xe0\x00\x01"s;  // "ab" and nine bytes of it
  const std::string damaged = "\xc3\x06\x0b" +
                              "\x01"
                              "ab"
                              "\xe0\x00\x09"s;  // points before its beginning
  const std::vector<std::pair<std::string, std::string>> values = {
      {test::String("short"), "short"},
      {"\xc0\x85"s, "-123"},
      {compressed, "abababababa"},
      {test::String(std::string(kShortStringLimit - 1, 'x')), std::string(kShortStringLimit - 1, 'x')},
      {test::String(std::string(kShortStringLimit, 'x')), ""},
      {test::String(""), ""},
      {damaged, ""}};
  std::string body = "\xfe\x00"s;
  for (size_t i = 0; i < values.size(); ++i)
    body += FileKeyBytes(0, "key" + std::to_string(i), values[i].first);
  test::MemorySource file(FramedFile("REDIS0011", body));
  NameFilter filter;
  auto source = RdbFileSource::Open(file, {}, filter, "");
  ASSERT_TRUE(source.ok());
  Batch batch;
  ASSERT_TRUE(source.value()->Next(batch).value());
  ASSERT_EQ(batch.entries.size(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const Entry& entry = batch.entries[i];
    EXPECT_EQ(entry.state, EntryState::kRead) << entry.key;
    EXPECT_EQ(entry.plain, !values[i].second.empty()) << entry.key;
    if (entry.plain) {
      EXPECT_EQ(entry.payload, values[i].second);
    }
    EXPECT_EQ(TypeOf(entry).value(), rdb::ValueType::kString);
  }
}

TEST(RdbFileSource, GoesOnFromEveryPosition) {
  test::MemorySource file(SampleFile());
  NameFilter filter;
  RdbFileOptions options;
  options.batch_keys = 3;
  const Outcome whole = ReadAll(file, options, filter);
  size_t before = 0;
  for (const std::string& position : whole.positions) {
    before = std::min<size_t>(before + 3, 20);
    const Outcome rest = ReadAll(file, options, filter, position);
    ASSERT_TRUE(rest.status.ok()) << rest.status.error().message << ": the checksum goes on, too";
    EXPECT_EQ(rest.keys,
              std::vector<std::string>(whole.keys.begin() + static_cast<long>(before), whole.keys.end()));
  }
}

TEST(RdbFileSource, PositionsAreOfOneFile) {
  test::MemorySource file(SampleFile());
  NameFilter filter;
  const RdbFileOptions options;
  const std::string position = ReadAll(file, options, filter).positions.back();
  file.set_identity("another");
  const Outcome other = ReadAll(file, options, filter, position);
  ASSERT_FALSE(other.status.ok());
  EXPECT_EQ(other.status.error().message, "the file has been replaced since reading it began");
  const std::string text = "file=a:1 size=77 db=3 crc=00000000deadbeef offset=12";
  const auto parsed = RdbFilePosition::Parse(text);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value().place.crc, 0xdeadbeefu);
  EXPECT_EQ(parsed.value().ToString(), text);
  for (const std::string bad : {"x", "file=a size=1 db=0 crc=0 offset=", "file=a size=1 db=-1 crc=0 offset=1",
                                "file=a size=1 db=0 crc=z offset=1", "file=a size=1 db=0 crc=0 offset=1 x"}) {
    EXPECT_FALSE(RdbFilePosition::Parse(bad).ok()) << bad;
  }
}

TEST(RdbFileSource, FilterExpiryDatabasesAndLimits) {
  test::MemorySource file(SampleFile());
  NameFilter filter;
  filter.interests = {{"key1", Interest::kIgnore}, {"key2", Interest::kNameOnly}};
  RdbFileOptions options;
  options.databases = std::vector<int>{0};
  options.now_ms = 2000;
  EXPECT_EQ(ReadAll(file, options, filter).keys,
            (std::vector<std::string>{"0/key0", "0/key2 name", "0/key3", "0/key4 expired", "0/key5", "0/key6",
                                      "0/key7", "0/key8", "0/key9"}));
  EXPECT_EQ(filter.asked.size(), 10u) << "each name once, and none of another database";
  options.now_ms = 1999;
  EXPECT_EQ(ReadAll(file, options, filter).keys[3], "0/key4");
  options.databases = std::vector<int>{5};
  options.max_value_bytes = 18;  // frame, length and six bytes
  EXPECT_EQ(ReadAll(file, options, filter).keys[0], "5/key10 large");
  options.max_value_bytes = 19;
  EXPECT_EQ(ReadAll(file, options, filter).keys[0], "5/key10");
}

TEST(RdbFileSource, WhatComesBeforeTheDamageIsReturned) {
  NameFilter filter;
  const RdbFileOptions options;
  std::string bytes = SampleFile();
  bytes.back() = static_cast<char>(bytes.back() + 1);
  test::MemorySource wrong_checksum(bytes);
  Outcome outcome = ReadAll(wrong_checksum, options, filter);
  EXPECT_EQ(outcome.keys.size(), 20u);
  ASSERT_FALSE(outcome.status.ok());
  EXPECT_NE(outcome.status.error().message.find("checksum"), std::string::npos);
  outcome = ReadAll(wrong_checksum, options, filter, outcome.positions.back());
  EXPECT_TRUE(outcome.keys.empty());
  EXPECT_FALSE(outcome.status.ok()) << "going on finds it again";

  test::MemorySource truncated(SampleFile().substr(0, 100));
  outcome = ReadAll(truncated, options, filter);
  EXPECT_GT(outcome.keys.size(), 3u);
  EXPECT_FALSE(outcome.status.ok());

  test::MemorySource longer(SampleFile() + "*1\r\n");
  outcome = ReadAll(longer, options, filter);
  EXPECT_EQ(outcome.keys.size(), 20u);
  ASSERT_FALSE(outcome.status.ok());
  EXPECT_NE(outcome.status.error().message.find("4 bytes follow the end"), std::string::npos);
}

// Each reader of a share passes over the values of the others.
TEST(RdbFileSource, SharesTogetherAreTheFile) {
  test::MemorySource file(SampleFile());
  NameFilter filter;
  RdbFileOptions options;
  const Outcome whole = ReadAll(file, options, filter);
  std::vector<std::string> keys;
  options.batch_keys = 2;
  for (uint64_t number = 0; number < 3; ++number) {
    options.share = {number, 3};
    filter.asked.clear();
    const Outcome share = ReadAll(file, options, filter);
    ASSERT_TRUE(share.status.ok());
    EXPECT_FALSE(share.keys.empty());
    EXPECT_EQ(filter.asked.size(), share.keys.size());
    for (size_t i = 0; i + 1 < share.positions.size(); ++i) {
      const Outcome rest = ReadAll(file, options, filter, share.positions[i]);
      EXPECT_EQ(rest.keys, std::vector<std::string>(share.keys.begin() + 2 * (i + 1), share.keys.end()));
    }
    keys.insert(keys.end(), share.keys.begin(), share.keys.end());
  }
  std::vector<std::string> expected = whole.keys;
  std::sort(keys.begin(), keys.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(keys, expected);
}

// A database with a hint, and so many keys in it.
std::string HintedDatabase(char db, uint64_t hint, int keys) {
  std::string body = "\xfe" + std::string(1, db) + "\xfb" + test::Length(hint) + test::Length(0);
  for (int i = 0; i < keys; ++i) body += FileKeyBytes(0, "key" + std::to_string(i), test::String("value"));
  return body;
}

// The number of keys that each batch expects, in order.
std::vector<uint64_t> ExpectedKeys(ByteSource& file, const RdbFileOptions& options,
                                   const std::string& position = "") {
  NameFilter filter;
  auto source = RdbFileSource::Open(file, options, filter, position);
  EXPECT_TRUE(source.ok());
  std::vector<uint64_t> expected;
  for (Batch batch; source.value()->Next(batch).value();) expected.push_back(batch.expected_keys);
  return expected;
}

TEST(RdbFileSource, HintsComeWithTheFirstKeyOfTheirDatabase) {
  test::MemorySource file(
      FramedFile("REDIS0011", HintedDatabase(0, 3, 3) + HintedDatabase(2, 100, 1) + HintedDatabase(7, 1, 2)));
  RdbFileOptions options;
  EXPECT_EQ(ExpectedKeys(file, options), std::vector<uint64_t>{104});
  options.batch_keys = 2;
  EXPECT_EQ(ExpectedKeys(file, options), (std::vector<uint64_t>{3, 100, 1}));
  NameFilter filter;
  const std::string behind_first = ReadAll(file, options, filter).positions.front();
  EXPECT_EQ(ExpectedKeys(file, options, behind_first), (std::vector<uint64_t>{100, 1}));
  options.databases = {2};
  EXPECT_EQ(ExpectedKeys(file, options), std::vector<uint64_t>{100}) << "of the databases that are read";
}

TEST(RdbFileSource, NoHintIsBelievedBeyondTheSizeOfTheFile) {
  for (const uint64_t hint : {uint64_t{1} << 63, UINT64_MAX}) {
    test::MemorySource file(FramedFile("REDIS0011", HintedDatabase(0, 1, 1) + HintedDatabase(1, hint, 1) +
                                                        HintedDatabase(2, hint, 1) +
                                                        HintedDatabase(3, 5, 1)));
    RdbFileOptions options;
    EXPECT_EQ(ExpectedKeys(file, options), std::vector<uint64_t>{file.size()});
  }
}

TEST(RdbFileSource, AnInvalidShareIsAnError) {
  test::MemorySource file(SampleFile());
  NameFilter filter;
  RdbFileOptions options;
  options.share = {3, 3};
  EXPECT_EQ(ReadAll(file, options, filter).status.error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace prm::source
