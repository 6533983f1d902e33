// Compares the decoder with redis-server itself.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "rdb/dump.h"
#include "rdb/encoder.h"

namespace prm::rdb {
namespace {

using test::DecodedRows;
using test::kSampleKey;
using test::RedisRows;
using test::Rows;

class RdbLive : public testing::Test {
 protected:
  RdbLive() : server_(test::SampleServerArguments()), redis_(server_.port()) {}

  // Compares the payload's rows with what Redis says of the key.
  void ExpectSame(const std::string& payload, const std::string& key) {
    const Result<Rows> decoded = DecodedRows(payload);
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    const Rows expected = RedisRows(redis_, key);
    ASSERT_EQ(decoded.value().size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(decoded.value()[i], expected[i]) << "row " << i;
  }

  test::RedisServer server_;
  test::RedisClient redis_;
};

TEST_F(RdbLive, EveryTypeInEveryEncoding) {
  for (const test::Sample& sample : test::Samples()) {
    SCOPED_TRACE(sample.name);
    const std::string payload = test::DumpSample(redis_, sample);
    EXPECT_EQ(static_cast<unsigned char>(payload[0]), sample.rdb_type);
    ASSERT_NO_FATAL_FAILURE(ExpectSame(payload, kSampleKey));
  }
}

// Makes sure of what the sample's name says: the container of the first node is 1.
TEST_F(RdbLive, PlainNodesArePlain) {
  for (const test::Sample& sample : test::Samples()) {
    if (sample.name != "list with plain nodes") continue;
    EXPECT_EQ(test::DumpSample(redis_, sample)[2], 1);
    return;
  }
  FAIL() << "no such sample";
}

// Elements whose back length is the last of three bytes and the first of four.
TEST_F(RdbLive, ListElementsOfTwoMegabytes) {
  for (const size_t size : {2097145, 2097146, 2097147}) {
    redis_.Command({"RPUSH", kSampleKey, std::string(size, 'x')});
  }
  ExpectSame(redis_.String({"DUMP", kSampleKey}), kSampleKey);
}

TEST_F(RdbLive, FixturePayloads) {
  const std::vector<std::string> payloads = test::FixturePayloads();
  if (payloads.empty()) GTEST_SKIP() << "PRM_RDB_FIXTURES is not set";
  std::set<char> types;
  for (const std::string& payload : payloads) {
    redis_.Command({"RESTORE", kSampleKey, "0", payload, "REPLACE"});
    types.insert(payload[0]);
    ASSERT_NO_FATAL_FAILURE(ExpectSame(payload, kSampleKey));
  }
  EXPECT_EQ(types, (std::set<char>{0, 2, 4, 5, 11, 16, 17, 18, 19}));
}

// Random values of random types. PRM_TEST_SEED repeats a run.
class RandomValues {
 public:
  explicit RandomValues(uint64_t seed) : random_(seed) {}

  uint64_t Below(uint64_t limit) { return random_() % limit; }

  std::string Bytes() {
    switch (Below(8)) {
      case 0:
        return "";
      case 1:
        return std::to_string(static_cast<int64_t>(random_()) >> Below(64));
      case 2:
        return std::string(Below(600), static_cast<char>(random_()));
      case 3:
        return Repetitive(Below(30000));
      case 4:
        return Noise(Below(20000));
      default:
        return Noise(Below(40));
    }
  }

  std::string Score() {
    char text[40];
    double score = 0;
    switch (Below(4)) {
      case 0:
        score = static_cast<double>(static_cast<int64_t>(random_()) >> Below(64));
        break;
      case 1:
        score = static_cast<double>(random_()) / 1e17;
        break;
      default: {
        const uint64_t bits = random_();
        std::memcpy(&score, &bits, sizeof(score));
        if (score != score) score = -1.0 / 0.0;
      }
    }
    std::snprintf(text, sizeof(text), "%.17g", score);
    return text;
  }

 private:
  std::string Noise(size_t size) {
    std::string bytes(size, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random_());
    return bytes;
  }

  // Repeats earlier pieces, and sometimes adds a new one.
  std::string Repetitive(size_t size) {
    std::string bytes = Noise(1 + Below(50));
    while (bytes.size() < size) {
      if (Below(5) == 0) bytes += Noise(1 + Below(40));
      const size_t start = Below(bytes.size());
      bytes += bytes.substr(start, 1 + Below(400));
    }
    return bytes;
  }

  std::mt19937_64 random_;
};

void WriteStream(test::RedisClient& redis, RandomValues& random) {
  const std::string key = kSampleKey;
  const std::vector<std::string> groups = {"g1", "g2"};
  redis.Command({"DEL", key});
  for (const std::string& group : groups) redis.Command({"XGROUP", "CREATE", key, group, "0", "MKSTREAM"});
  uint64_t ms = random.Below(uint64_t{1} << random.Below(62)) + 1;
  std::vector<std::string> ids;
  std::vector<std::string> fields = {"a"};
  for (uint64_t i = random.Below(300); i > 0; --i) {
    ms += 1 + random.Below(3);
    if (random.Below(10) == 0) {
      fields.clear();
      for (uint64_t n = random.Below(6); fields.size() <= n;) fields.push_back(random.Bytes());
    }
    ids.push_back(std::to_string(ms) + "-" +
                  std::to_string(random.Below(3) == 0 ? random.Below(UINT64_MAX) : 0));
    std::vector<std::string> add = {"XADD", key, ids.back()};
    for (const std::string& field : fields) {
      add.push_back(field);
      add.push_back(random.Bytes());
    }
    redis.Command(add);
    const std::string& any_id = ids[random.Below(ids.size())];
    const std::string& group = groups[random.Below(groups.size())];
    const std::string consumer = "consumer " + std::to_string(random.Below(4));
    switch (random.Below(8)) {
      case 0:
        redis.Command({"XDEL", key, any_id});
        break;
      case 1:
        redis.Command({"XREADGROUP", "GROUP", group, consumer, "COUNT", "9", "STREAMS", key, ">"});
        break;
      case 2:
        redis.Command({"XACK", key, group, any_id});
        break;
      case 3:
        redis.Command({"XCLAIM", key, group, consumer, "0", any_id});
        break;
      case 4:
        redis.Command({"XTRIM", key, "MAXLEN", "~", "200"});
        break;
      default:
        break;
    }
  }
}

void WriteValue(test::RedisClient& redis, RandomValues& random) {
  static const std::vector<std::string> kCommands = {"SET", "RPUSH", "SADD", "HSET", "ZADD", "XADD"};
  const std::string& name = kCommands[random.Below(kCommands.size())];
  if (name == "XADD") return WriteStream(redis, random);
  std::vector<std::string> command = {name, kSampleKey};
  const uint64_t limit = random.Below(3) == 0 ? 700 : 40;
  const uint64_t count = name == "SET" ? 1 : 1 + random.Below(limit);
  const bool integers = random.Below(4) == 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (name == "ZADD") command.push_back(random.Score());
    command.push_back(integers ? std::to_string(random.Below(uint64_t{1} << random.Below(63)))
                               : random.Bytes());
    if (name == "HSET") command.push_back(random.Bytes());
  }
  redis.Command({"DEL", kSampleKey});
  redis.Command(command);
}

TEST_F(RdbLive, RandomValuesOfEveryType) {
  const char* const wanted = std::getenv("PRM_TEST_SEED");
  const uint64_t seed = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : std::random_device()();
  std::printf("PRM_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  SCOPED_TRACE("PRM_TEST_SEED=" + std::to_string(seed));
  RandomValues random(seed);
  std::set<char> types;
  for (int i = 0; i < 400; ++i) {
    SCOPED_TRACE("value " + std::to_string(i));
    const std::string listpack_value = random.Below(2) == 0 ? "64" : "100000";
    redis_.Command({"CONFIG", "SET", "hash-max-listpack-value", listpack_value, "zset-max-listpack-value",
                    listpack_value, "rdbcompression", random.Below(4) == 0 ? "no" : "yes",
                    "list-max-listpack-size", random.Below(2) == 0 ? "-2" : "-5"});
    redis_.Command({"DEBUG", "QUICKLIST-PACKED-THRESHOLD", random.Below(2) == 0 ? "8192b" : "1gb"});
    WriteValue(redis_, random);
    const std::string payload = redis_.String({"DUMP", kSampleKey});
    types.insert(payload[0]);
    ASSERT_NO_FATAL_FAILURE(ExpectSame(payload, kSampleKey));
  }
  EXPECT_GE(types.size(), 7u) << "the run met too few types to mean anything";
}

// The lengths of strings have three forms.
TEST_F(RdbLive, RedisRestoresWhatIsEncoded) {
  std::vector<size_t> sizes = {1000, 1023, 40000, 65535, 65536, 70000};
  for (const size_t border : {size_t{0}, size_t{64}, size_t{16384}}) {
    for (size_t size = border < 20 ? 0 : border - 20; size < border + 20; ++size) sizes.push_back(size);
  }
  for (const size_t size : sizes) {
    std::string value;
    for (size_t i = 0; i < size; ++i) value.push_back(static_cast<char>((i * 37 + i / 256 + size) % 256));
    const std::string payload = EncodeStringDump(value);
    redis_.Command({"RESTORE", kSampleKey, "0", payload, "REPLACE"});
    ASSERT_TRUE(redis_.String({"GET", kSampleKey}) == value) << size;
    ASSERT_NO_FATAL_FAILURE(ExpectSame(payload, kSampleKey));
  }
  for (const std::string value : {"0", "-1", "127", "9223372036854775807", "007", "1e3"}) {
    redis_.Command({"RESTORE", kSampleKey, "0", EncodeStringDump(value), "REPLACE"});
    EXPECT_EQ(redis_.String({"GET", kSampleKey}), value);
  }
  // Integers are stored as such again.
  redis_.Command({"RESTORE", kSampleKey, "0", EncodeStringDump("41"), "REPLACE"});
  EXPECT_EQ(redis_.String({"OBJECT", "ENCODING", kSampleKey}), "int");
}

}  // namespace
}  // namespace prm::rdb
