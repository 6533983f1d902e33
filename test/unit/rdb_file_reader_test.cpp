// Dump files that redis-server writes, and those of other versions built by hand.
#include "rdb/file_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "lib/cpp/rdb_builders.h"
#include "lib/cpp/rdb_file.h"
#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"

namespace prm::rdb {
namespace {

using std::string_literals::operator""s;
using test::FileContents;
using test::FileKeyBytes;
using test::FramedFile;
using test::ReadFile;
using test::Rows;

Error Failure(const std::string& file) {
  const FileContents contents = ReadFile(file);
  EXPECT_FALSE(contents.status.ok());
  return contents.status.ok() ? Error{ErrorCode::kInvalidArgument, "", "", ""} : contents.status.error();
}

class RdbFileLive : public testing::Test {
 protected:
  RdbFileLive() : server_(test::SampleServerArguments()), redis_(server_.port()) {}

  std::string Save() {
    redis_.Command({"SAVE"});
    return test::Slurp(server_.directory() + "/dump.rdb");
  }

  // All samples, each under a name of its own, in two databases.
  void WriteSamples() {
    size_t number = 0;
    for (const test::Sample& sample : test::Samples()) {
      const std::string payload = test::DumpSample(redis_, sample);
      payloads_.push_back(payload);
      names_.push_back("sample " + std::to_string(number++) + " " + sample.name);
    }
    redis_.Command({"FLUSHALL"});
    for (size_t i = 0; i < payloads_.size(); ++i) {
      redis_.Command({"SELECT", i % 2 == 0 ? "0" : "11"});
      redis_.Command({"RESTORE", names_[i], i % 3 == 0 ? "4102444800000" : "0", payloads_[i], "ABSTTL"});
      // Redis may have changed the encoding; in some, -0 becomes 0.
      rows_.push_back(test::RedisRows(redis_, names_[i]));
    }
    redis_.Command(
        {"FUNCTION", "LOAD", "#!lua name=mylib\nredis.register_function('f', function() return 1 end)"});
  }

  void ExpectSamples(const FileContents& contents) {
    ASSERT_TRUE(contents.status.ok()) << contents.status.error().message;
    ASSERT_EQ(contents.key_count, names_.size());
    for (size_t i = 0; i < names_.size(); ++i) {
      SCOPED_TRACE(names_[i]);
      const auto& entry = contents.keys.at({i % 2 == 0 ? 0 : 11, names_[i]});
      EXPECT_EQ(entry.rows, rows_[i]);
      EXPECT_EQ(entry.key.expires_at_ms.has_value(), i % 3 == 0);
      if (entry.key.expires_at_ms) EXPECT_EQ(*entry.key.expires_at_ms, 4102444800000);
    }
  }

  test::RedisServer server_;
  test::RedisClient redis_;
  std::vector<std::string> payloads_;
  std::vector<std::string> names_;
  std::vector<Rows> rows_;
};

TEST_F(RdbFileLive, EveryTypeInEveryEncoding) {
  WriteSamples();
  for (const std::string compression : {"yes", "no"}) {
    redis_.Command({"CONFIG", "SET", "rdbcompression", compression});
    const std::string file = Save();
    const FileContents contents = ReadFile(file);
    ExpectSamples(contents);
    EXPECT_EQ(contents.header.version, 10u);
    EXPECT_FALSE(contents.header.valkey);
    EXPECT_EQ(contents.notes.checksum, true);
    EXPECT_EQ(contents.notes.functions, 1u);
    EXPECT_EQ(contents.notes.aux.at("redis-ver"), "7.0.15");
    ExpectSamples(ReadFile(file, 5));
  }
}

TEST_F(RdbFileLive, WhatEvictionNotes) {
  redis_.Command({"SET", "k", "v"});
  redis_.Command({"CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"});
  EXPECT_TRUE(ReadFile(Save()).keys.at({0, "k"}).key.frequency.has_value());
  redis_.Command({"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"});
  EXPECT_TRUE(ReadFile(Save()).keys.at({0, "k"}).key.idle_seconds.has_value());
}

TEST_F(RdbFileLive, EveryFlippedBitIsFound) {
  redis_.Command({"SET", "k", "a value"});
  redis_.Command({"RPUSH", "l", "a", "b", "5"});
  redis_.Command({"PEXPIREAT", "l", "4102444800000"});
  const std::string file = Save();
  for (size_t bit = 0; bit < 8 * file.size(); ++bit) {
    std::string flipped = file;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    test::MemorySource source(flipped);
    FileReader reader(source, {});
    Status status = reader.Open();
    while (status.ok()) {
      const Result<bool> next = reader.Next();
      if (!next.ok()) status = next.error();
      if (!next.ok() || !next.value()) break;
      status = reader.SkipValue();
    }
    EXPECT_FALSE(status.ok()) << bit;
  }
}

TEST_F(RdbFileLive, EveryTruncationIsFound) {
  redis_.Command({"SET", "k", "a value"});
  redis_.Command({"XADD", "s", "1-1", "f", "v"});
  redis_.Command({"XGROUP", "CREATE", "s", "g", "0"});
  const std::string file = Save();
  for (size_t size = 0; size < file.size(); ++size)
    EXPECT_FALSE(ReadFile(file.substr(0, size)).status.ok()) << size;
  EXPECT_TRUE(ReadFile(file).status.ok());
}

TEST(RdbFile, WithoutChecksum) {
  test::RedisServer server({"--rdbchecksum", "no"});
  test::RedisClient redis(server.port());
  redis.Command({"SET", "k", "v"});
  redis.Command({"SAVE"});
  const FileContents contents = ReadFile(test::Slurp(server.directory() + "/dump.rdb"));
  ASSERT_TRUE(contents.status.ok());
  EXPECT_EQ(contents.notes.checksum, std::nullopt);
  EXPECT_EQ(contents.key_count, 1u);
}

TEST(RdbFile, OldVersions) {
  const std::string body = "\xfe\x02\xfd\x00\xf1\x53\x65"s + FileKeyBytes(0, "k", "\x01v") +
                           FileKeyBytes(9, "h", test::String(test::Zipmap({{"f", "v"}})));
  for (const std::string header : {"REDIS0001", "REDIS0002", "REDIS0004"}) {
    const FileContents contents = ReadFile(header + body + "\xff");
    ASSERT_TRUE(contents.status.ok()) << contents.status.error().message;
    EXPECT_EQ(contents.keys.at({2, "k"}).rows, (Rows{{"v"}}));
    EXPECT_EQ(contents.keys.at({2, "k"}).key.expires_at_ms, 1700000000000);
    EXPECT_EQ(contents.keys.at({2, "h"}).rows, (Rows{{"f", "v"}}));
    EXPECT_FALSE(contents.keys.at({2, "h"}).key.expires_at_ms.has_value());
    EXPECT_EQ(contents.notes.checksum, std::nullopt);
  }
  EXPECT_EQ(Failure("REDIS0005" + body + "\xff").code, ErrorCode::kCorruptData) << "a checksum is missing";
}

TEST(RdbFile, Headers) {
  for (const std::string header :
       {"REDIS0000", "REDIS0016", "REDIS0080", "REDIS0099", "VALKEY011", "VALKEY082"}) {
    const Error error = Failure(FramedFile(header, ""));
    EXPECT_EQ(error.code, ErrorCode::kUnsupported) << header;
    EXPECT_EQ(error.detail, "It begins with \"" + header +
                                "\". Versions 1 to 15 of Redis and 80 to 81 of Valkey are read.");
  }
  for (const std::string header : {"REDIS00x1", "redis0011", "RDBX00011", "REDIS", "", "VALKEY-80"}) {
    const Error error = Failure(header);
    EXPECT_EQ(error.code, ErrorCode::kCorruptData) << header;
    EXPECT_EQ(error.message, "not an RDB file");
  }
}

// Codes and types that Redis and Valkey use for different things.
TEST(RdbFile, ValkeyHasCodesOfItsOwn) {
  const std::string slot_import =
      "\xf3"s + test::String(std::string(40, 'j')) + test::Length(1) + test::Length(0) + test::Length(100);
  const std::string hash = FileKeyBytes(
      22, "h",
      test::Length(1) + test::String("f") + test::String("v") + test::LittleEndian(1700000000000, 8));
  const FileContents contents = ReadFile(FramedFile("VALKEY080", slot_import + "\xfe\x00"s + hash));
  ASSERT_TRUE(contents.status.ok()) << contents.status.error().message;
  EXPECT_TRUE(contents.header.valkey);
  EXPECT_EQ(contents.keys.at({0, "h"}).rows, (Rows{{"f", "v", "1700000000000"}}));
  EXPECT_EQ(contents.keys.at({0, "h"}).key.type.name, "HASH_2"s);
  EXPECT_EQ(Failure(FramedFile("REDIS0012", slot_import)).code, ErrorCode::kUnsupported);
  EXPECT_FALSE(ReadFile(FramedFile("REDIS0012", "\xfe\x00"s + hash)).status.ok());
  EXPECT_EQ(Failure(FramedFile("VALKEY080", FileKeyBytes(24, "h", ""))).code, ErrorCode::kUnsupported);
}

TEST(RdbFile, ModulesAndTheirParts) {
  const std::string id = test::Length(test::ModuleId("test__rdb", 1));
  const std::string aux =
      "\xf7"s + id + test::Length(2) + test::Length(1) + test::Length(5) + test::String("x") + "\x00"s;
  const std::string value = FileKeyBytes(7, "m", id + test::Length(2) + test::Length(3) + "\x00"s);
  const FileContents contents =
      ReadFile(FramedFile("REDIS0011", aux + "\xfe\x00"s + value + FileKeyBytes(0, "k", "\x01v")));
  ASSERT_TRUE(contents.status.ok()) << contents.status.error().message;
  EXPECT_EQ(contents.notes.modules, (std::map<std::string, uint64_t>{{"test__rdb", 1}}));
  EXPECT_EQ(contents.keys.at({0, "m"}).rows, (Rows{{"test__rdb"}}));
  EXPECT_EQ(contents.keys.at({0, "k"}).rows, (Rows{{"v"}}));
}

TEST(RdbFile, NotesDoNotGrowWithTheFile) {
  std::string body;
  for (int i = 0; i < 1000; ++i) {
    const std::string number = std::to_string(1000 + i);
    body += "\xfa"s + test::String("name" + number) + test::String("");
    body += "\xf7"s + test::Length(test::ModuleId("mod--" + number, 1)) + test::Length(2) + test::Length(1) +
            "\x00"s;
  }
  const FileContents contents = ReadFile(FramedFile("REDIS0011", body));
  ASSERT_TRUE(contents.status.ok()) << contents.status.error().message;
  EXPECT_EQ(contents.notes.aux.size(), 100u);
  EXPECT_EQ(contents.notes.modules.size(), 101u);
  EXPECT_EQ(contents.notes.modules.at("mod--1000"), 1u);
  EXPECT_EQ(contents.notes.modules.at("(others)"), 900u);
}

TEST(RdbFile, UnknownTypesAreNamed) {
  const std::string head = "\xfe\x07"s + FileKeyBytes(0, "fine", "\x01v");
  const FileContents contents = ReadFile(FramedFile("REDIS0012", head + FileKeyBytes(28, "array\n", "???")));
  ASSERT_FALSE(contents.status.ok());
  EXPECT_EQ(contents.key_count, 1u);
  const Error& error = contents.status.error();
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_EQ(error.message, "unsupported value type 28 of RDB version 12 at byte 19");
  EXPECT_EQ(error.detail, "RDB version 12, database 7, key \"array\\x0a\".");
  const Error module = Failure(FramedFile("REDIS0009", FileKeyBytes(6, "m", "x")));
  EXPECT_EQ(module.code, ErrorCode::kUnsupported);
  EXPECT_NE(module.detail.find("key \"m\". It is a module's value"), std::string::npos);
  EXPECT_EQ(Failure(FramedFile("REDIS0010", "\xf6\x01x")).code, ErrorCode::kUnsupported)
      << "functions of a draft";
}

TEST(RdbFile, DamageIsNamed) {
  const Error error =
      Failure(FramedFile("REDIS0011", "\xfe\x00"s + FileKeyBytes(18, "list", "\x01\x02\x03xyz")));
  EXPECT_EQ(error.code, ErrorCode::kCorruptData);
  EXPECT_EQ(error.detail, "RDB version 11, database 0, key \"list\", type 18 (LIST_QUICKLIST_2).");
  EXPECT_EQ(error.message.rfind("corrupt value at byte ", 0), 0u) << error.message;
}

// A claimed length takes no memory before its bytes arrive.
TEST(RdbFile, HostileLengths) {
  const std::string huge = "\x81\xff\xff\xff\xff\xff\xff\xff\xff"s;
  for (int type = 0; type < 33; ++type) {
    for (const std::string header : {"REDIS0015", "VALKEY081"}) {
      if (type == 7) continue;  // has no count
      EXPECT_FALSE(
          ReadFile(header + FileKeyBytes(static_cast<uint8_t>(type), "k", huge + "\x01x")).status.ok())
          << type;
    }
  }
  EXPECT_FALSE(ReadFile("REDIS0012\x00"s + huge).status.ok()) << "the name of a key";
  EXPECT_FALSE(ReadFile("REDIS0012\xfa"s + huge).status.ok());
  EXPECT_FALSE(ReadFile("REDIS0015\xf2\x01"s + huge).status.ok()) << "the fields of a template";
  EXPECT_FALSE(ReadFile("REDIS0015\xf3"s + huge).status.ok()) << "what modules keep about a key";
  EXPECT_FALSE(ReadFile("REDIS0012\xfe"s + huge).status.ok()) << "the number of a database";
}

// Counts what it is handed and how much memory the reader may have held for it.
class Counter : public ValueVisitor {
 public:
  void OnListElement(Bytes) override { ++elements; }
  void OnHashField(Bytes, Bytes) override { ++elements; }
  void OnZsetMember(Bytes, double) override { ++elements; }
  uint64_t elements = 0;
};

// A value of three million fields, generated as it is read, which is larger than the window.
class EndlessHash : public ByteSource {
 public:
  static constexpr uint64_t kFields = 3000000;
  EndlessHash() {
    head_ = "REDIS0004" + FileKeyBytes(4, "h", test::Length(kFields));
    item_ = test::String("field-field") + test::String("value-value");
  }
  uint64_t size() const override { return head_.size() + kFields * item_.size() + 1; }
  std::string identity() const override { return "endless"; }
  Result<size_t> Read(uint64_t offset, char* to, size_t size) override {
    longest_ = std::max(longest_, size);
    size_t count = 0;
    for (; count < size && offset < this->size(); ++count, ++offset) {
      to[count] = offset < head_.size()        ? head_[offset]
                  : offset + 1 == this->size() ? '\xff'
                                               : item_[(offset - head_.size()) % item_.size()];
    }
    return count;
  }
  size_t longest() const { return longest_; }

 private:
  std::string head_;
  std::string item_;
  size_t longest_ = 0;
};

TEST(RdbFile, MillionsOfElementsNeedNoMemoryOfTheirSize) {
  EndlessHash source;
  FileReader reader(source, {});
  ASSERT_TRUE(reader.Open().ok());
  ASSERT_TRUE(reader.Next().value());
  Counter counter;
  ASSERT_TRUE(reader.DecodeValue(counter).ok());
  EXPECT_EQ(counter.elements, EndlessHash::kFields);
  EXPECT_FALSE(reader.Next().value());
  EXPECT_LE(source.longest(), ByteStream::kWindow);

  FileReader again(source, {});
  ASSERT_TRUE(again.Open().ok());
  ASSERT_TRUE(again.Next().value());
  std::string payload;
  uint64_t size = 0;
  ASSERT_TRUE(again.TakePayload(1000, payload, size).ok());
  EXPECT_TRUE(payload.empty());
  EXPECT_GT(size, EndlessHash::kFields * 20);
}

}  // namespace
}  // namespace prm::rdb
