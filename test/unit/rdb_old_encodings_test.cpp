// Encodings that Redis no longer writes: decoded here and by redis-server, which RESTOREs them.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "lib/cpp/rdb_builders.h"
#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "rdb/dump.h"
#include "rdb/ziplist.h"

namespace prm::rdb {
namespace {

using std::string_literals::operator""s;
using test::DecodedRows;
using test::Framed;
using test::Row;
using test::Rows;

// Around the limits of every form of a ziplist's element, of its size, and of a zipmap's length.
std::vector<std::string> Elements() {
  std::vector<std::string> elements = {"",
                                       "0",
                                       "12",
                                       "13",
                                       "-1",
                                       "127",
                                       "-128",
                                       "128",
                                       "-129",
                                       "32767",
                                       "-32768",
                                       "32768",
                                       "-32769",
                                       "8388607",
                                       "-8388608",
                                       "8388608",
                                       "-8388609",
                                       "2147483647",
                                       "-2147483648",
                                       "2147483648",
                                       "-2147483649",
                                       "9223372036854775807",
                                       "-9223372036854775808",
                                       "9223372036854775808",
                                       "007",
                                       "-0",
                                       "1.5",
                                       "\0\xff"s};
  for (const size_t size : {1, 62, 63, 64, 65, 240, 249, 250, 251, 252, 253, 254, 255, 16383, 16384, 70000}) {
    elements.push_back(std::string(size, 'x'));
    elements.push_back("behind " + std::to_string(size));
  }
  return elements;
}

std::string Message(const Result<Rows>& rows) { return rows.ok() ? "no error" : rows.error().message; }

std::string Payload(char type, const std::string& value) {
  std::string payload = std::string(1, type) + value;
  AppendDumpTrailer(6, payload);
  return payload;
}

class RdbOldEncodings : public testing::Test {
 protected:
  RdbOldEncodings() : server_({"--sanitize-dump-payload", "yes"}), redis_(server_.port()) {}

  void ExpectSame(const std::string& payload) {
    redis_.Command({"RESTORE", "k", "0", payload, "REPLACE"});
    const Result<Rows> rows = DecodedRows(payload);
    ASSERT_TRUE(rows.ok()) << rows.error().message;
    EXPECT_EQ(rows.value(), test::RedisRows(redis_, "k"));
  }

  test::RedisServer server_;
  test::RedisClient redis_;
};

TEST_F(RdbOldEncodings, Lists) {
  const std::vector<std::string> elements = Elements();
  ExpectSame(Payload(10, test::String(test::Ziplist(elements))));
  ExpectSame(Payload(14, test::Length(3) + test::String(test::Ziplist(elements)) +
                             test::String(test::Ziplist({"a"})) +
                             test::String(test::Ziplist({"1", "2", ""}))));
  ExpectSame(Payload(10, test::String(test::Ziplist(std::vector<std::string>(70000, "many")))));
}

TEST_F(RdbOldEncodings, Hashes) {
  std::vector<std::string> flat;
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& element : Elements()) {
    pairs.emplace_back(element, std::to_string(pairs.size()));
    pairs.emplace_back("field " + std::to_string(pairs.size()), element);
  }
  for (const auto& [field, value] : pairs) {
    flat.push_back(field);
    flat.push_back(value);
  }
  ExpectSame(Payload(13, test::String(test::Ziplist(flat))));
  for (const uint8_t unused : {0, 1, 4}) ExpectSame(Payload(9, test::String(test::Zipmap(pairs, unused))));
}

TEST_F(RdbOldEncodings, SortedSets) {
  const std::vector<std::string> scores = {"-inf",   "-1e300", "-7", "-0.5", "0",
                                           "5e-324", "0.1",    "3",  "1e20", "inf"};
  std::vector<std::string> flat;
  std::string texts = test::Length(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    flat.push_back("member " + std::to_string(i));
    flat.push_back(scores[i]);
    texts += test::String(std::to_string(i)) + test::TextScore(scores[i]);
  }
  ExpectSame(Payload(12, test::String(test::Ziplist(flat))));
  ExpectSame(Payload(3, texts));
}

TEST_F(RdbOldEncodings, RandomZiplists) {
  std::mt19937_64 random(20240601);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> elements;
    for (uint64_t i = random() % 40 + 1; i > 0; --i) {
      elements.push_back(random() % 2 == 0 ? std::to_string(static_cast<int64_t>(random()) >> (random() % 64))
                                           : std::string(random() % 600, static_cast<char>(random())));
    }
    ASSERT_NO_FATAL_FAILURE(ExpectSame(Payload(10, test::String(test::Ziplist(elements)))));
  }
}

TEST(Ziplist, EmptyOnesAreNoErrors) {
  for (const char type : {10, 12, 13}) {
    const Result<Rows> rows = DecodedRows(Framed(std::string(1, type) + test::String(test::Ziplist({}))));
    ASSERT_TRUE(rows.ok()) << Message(rows);
    EXPECT_TRUE(rows.value().empty());
  }
  EXPECT_TRUE(DecodedRows(Framed("\x09"s + test::String(test::Zipmap({})))).ok());
}

TEST(Ziplist, RefusesContradictions) {
  const std::string good = test::Ziplist({"abc", "5"});
  const auto message = [](const std::string& blob) {
    return Message(DecodedRows(Framed("\x0a"s + test::String(blob))));
  };
  EXPECT_EQ(message(good), "no error");
  const auto with = [&good](size_t at, char byte) {
    std::string bad = good;
    bad[at] = byte;
    return bad;
  };
  EXPECT_NE(message(with(0, 99)).find("its header says 99 bytes"), std::string::npos);
  EXPECT_NE(message(with(4, 10)).find("the last element is at byte 10, it is at 15"), std::string::npos);
  EXPECT_NE(message(with(8, 3)).find("its header says 3 elements, it has 2"), std::string::npos);
  EXPECT_NE(message(with(good.size() - 1, 0)).find("it has no end mark"), std::string::npos);
  EXPECT_NE(message(with(15, 4)).find("how long the one before it is"), std::string::npos);
  EXPECT_NE(message(with(16, '\xff')).find("unknown element encoding 255"), std::string::npos);
  EXPECT_NE(message(with(11, 60)).find("60 bytes expected"), std::string::npos);
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_NE(message(good.substr(0, size)), "no error") << size;
}

TEST(Zipmap, RefusesContradictions) {
  const auto message = [](const std::string& blob) {
    return Message(DecodedRows(Framed("\x09"s + test::String(blob))));
  };
  const std::string good = test::Zipmap({{"f", "v"}});
  EXPECT_EQ(message(good), "no error");
  EXPECT_NE(message("\x02" + good.substr(1)).find("its header says 2 fields, it has 1"), std::string::npos);
  EXPECT_EQ(message("\xfe" + good.substr(1)), "no error") << "254: whoever wrote it did not count";
  EXPECT_NE(message(good + "x").find("1 bytes are left after its end"), std::string::npos);
  EXPECT_NE(message("\x01\x01"
                    "f\xff"s)
                .find("it ends where a value is expected"),
            std::string::npos);
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_NE(message(good.substr(0, size)), "no error") << size;
}

TEST(TextScores, WhatIsNoNumberIsRefused) {
  for (const std::string score : {"nan", "1x", ""}) {
    EXPECT_NE(Message(DecodedRows(Framed("\x03\x01\x01m"s + test::TextScore(score))))
                  .find("a score is not a number"),
              std::string::npos)
        << score;
  }
}

// Expiries of fields: absolute in the drafts and in Valkey, counted from the earliest in Redis 7.4.
TEST(ExpiringHashes, EveryLayout) {
  const Rows expected = {{"forever", "2"}, {"later", "3", "1700000005000"}, {"soon", "1", "1700000000000"}};
  const auto rows = [](const std::string& body, unsigned version) {
    const Result<Rows> decoded = DecodedRows(Framed(body, version));
    return decoded.ok() ? decoded.value() : Rows{{decoded.error().message}};
  };
  const auto triple = [](uint64_t expiry, const std::string& field, const std::string& value) {
    return test::Length(expiry) + test::String(field) + test::String(value);
  };
  const uint64_t base = 1700000000000;
  EXPECT_EQ(rows("\x16" + test::Length(3) + triple(base, "soon", "1") + triple(0, "forever", "2") +
                     triple(base + 5000, "later", "3"),
                 12),
            expected);
  EXPECT_EQ(rows("\x18" + test::LittleEndian(base, 8) + test::Length(3) + triple(1, "soon", "1") +
                     triple(0, "forever", "2") + triple(5001, "later", "3"),
                 12),
            expected);
  const std::string listpack = test::String(test::Listpack({{"soon", {}},
                                                            {"1", {}},
                                                            {"", base},
                                                            {"later", {}},
                                                            {"3", {}},
                                                            {"", base + 5000},
                                                            {"forever", {}},
                                                            {"2", {}},
                                                            {"", 0}}));
  EXPECT_EQ(rows("\x17" + listpack, 12), expected);
  EXPECT_EQ(rows("\x19" + test::LittleEndian(base, 8) + listpack, 12), expected);
  const auto valkey = [](const std::string& field, const std::string& value, int64_t expiry) {
    return test::String(field) + test::String(value) + test::LittleEndian(static_cast<uint64_t>(expiry), 8);
  };
  EXPECT_EQ(rows("\x16" + test::Length(3) + valkey("soon", "1", base) + valkey("forever", "2", -1) +
                     valkey("later", "3", base + 5000),
                 80),
            expected);
  EXPECT_NE(rows("\x16" + test::Length(1) + valkey("f", "v", -2), 80)[0][0].find("negative expiry"),
            std::string::npos);
  EXPECT_NE(
      rows("\x18" + test::LittleEndian(UINT64_MAX, 8) + test::Length(1) + triple(1, "f", "v"), 12)[0][0].find(
          "impossible expiry"),
      std::string::npos);
  // From an earliest of 0, which no server writes, they would count from -1.
  EXPECT_EQ(rows("\x18" + test::LittleEndian(0, 8) + test::Length(1) + triple(1, "f", "v"), 12),
            (Rows{{"f", "v", "0"}}));
  EXPECT_NE(
      rows("\x18" + test::LittleEndian(0, 8) + test::Length(1) + triple(UINT64_MAX, "f", "v"), 12)[0][0].find(
          "impossible expiry"),
      std::string::npos);
}

TEST(Modules, ValuesAreOpaqueAndSkippedExactly) {
  const std::string parts = test::Length(test::ModuleId("ReJSON-RL", 3)) + test::Length(1) + test::Length(7) +
                            test::Length(2) + test::Length(UINT64_MAX) + test::Length(3) +
                            std::string(4, 'f') + test::Length(4) + std::string(8, 'd') + test::Length(5) +
                            test::String("{}") + test::Length(0);
  const Result<Rows> rows = DecodedRows(Framed("\x07" + parts));
  ASSERT_TRUE(rows.ok()) << Message(rows);
  EXPECT_EQ(rows.value(), (Rows{{"ReJSON-RL"}}));
  EXPECT_NE(Message(DecodedRows(Framed("\x07" + parts + "x"))).find("1 bytes are left"), std::string::npos);
  EXPECT_NE(Message(DecodedRows(Framed("\x07" + test::Length(1) + "\x06"s)))
                .find("unknown part 6 of a module's value"),
            std::string::npos);
}

}  // namespace
}  // namespace prm::rdb
