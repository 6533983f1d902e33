#include "lib/cpp/rdb_payloads.h"

#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

namespace prm::test {

namespace {

using std::string_literals::operator""s;
using Command = std::vector<std::string>;

constexpr uint8_t kString = 0, kSet = 2, kHash = 4, kZset2 = 5, kSetIntset = 11, kHashListpack = 16,
                  kZsetListpack = 17, kListQuicklist2 = 18, kStreamListpacks2 = 19;

std::string AllBytes() {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

// Bytes that LZF cannot make smaller, always the same.
std::string Noise(size_t size) {
  std::mt19937 random(static_cast<unsigned>(size));
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

std::string Text(size_t size) {
  std::string text;
  for (int i = 0; text.size() < size; ++i)
    text += "the " + std::to_string(i) + "th line of a compressible text\n";
  text.resize(size);
  return text;
}

Command With(Command command, const std::vector<std::string>& arguments) {
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

// Values that look alike to a careless reader: integers of every width and what is nearly one.
std::vector<std::string> Scalars() {
  return {"",
          "0",
          "-0",
          "007",
          "+1",
          " 1",
          "1 ",
          "1.0",
          "-1",
          "12",
          "127",
          "128",
          "-128",
          "-129",
          "4095",
          "4096",
          "-4096",
          "-4097",
          "32767",
          "32768",
          "-32768",
          "-32769",
          "8388607",
          "8388608",
          "-8388608",
          "-8388609",
          "2147483647",
          "2147483648",
          "-2147483648",
          "-2147483649",
          "9223372036854775807",
          "-9223372036854775808",
          "9223372036854775808",
          "\0"s,
          "\0\0\0\0"s,
          AllBytes(),
          "\xff\xfe not UTF-8",
          "h\xc3\xa9llo",
          "{\"id\": 17}"};
}

// Strings around the limits of every length encoding, of listpacks and of RDB.
std::vector<std::string> Lengths() {
  std::vector<std::string> strings;
  for (const size_t size :
       {1, 20, 21, 63, 64, 65, 4095, 4096, 8191, 8193, 16376, 16377, 16378, 16383, 16384}) {
    strings.push_back(Noise(size));
    strings.push_back(Text(size));
  }
  return strings;
}

std::vector<std::string> Numbered(const std::string& prefix, int count) {
  std::vector<std::string> strings;
  for (int i = 0; i < count; ++i) strings.push_back(prefix + std::to_string(i));
  return strings;
}

// a0 b0 a1 b1 ...; b is used again from the start when it is shorter.
std::vector<std::string> Paired(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<std::string> pairs;
  for (size_t i = 0; i < a.size(); ++i) {
    pairs.push_back(a[i]);
    pairs.push_back(b[i % b.size()]);
  }
  return pairs;
}

std::vector<std::string> Scores() {
  return {"0",
          "-0",
          "1",
          "-1",
          "1.5",
          "0.1",
          "inf",
          "-inf",
          "1e20",
          "123456789012345678",
          "5e-324",
          "-5e-324",
          "2.2250738585072011e-308",
          "1.7976931348623157e308",
          "-1.7976931348623157e308",
          "3.14159265358979312",
          "1e-7",
          "4503599627370497.5"};
}

void AddStrings(std::vector<Sample>& samples) {
  for (const std::string& value : Scalars()) {
    samples.push_back({"string " + std::to_string(samples.size()), kString, {{"SET", kSampleKey, value}}});
  }
  for (const std::string& value : Lengths()) {
    samples.push_back({"string of " + std::to_string(value.size()), kString, {{"SET", kSampleKey, value}}});
  }
  samples.push_back({"bitmap", kString, {{"SETBIT", kSampleKey, "100000", "1"}}});
  samples.push_back({"float", kString, {{"INCRBYFLOAT", kSampleKey, "10.25"}}});
  samples.push_back({"appended integer", kString, {{"SET", kSampleKey, "12"}, {"APPEND", kSampleKey, "34"}}});
  samples.push_back({"sparse hyperloglog", kString, {With({"PFADD", kSampleKey}, Numbered("u", 20))}});
  samples.push_back({"dense hyperloglog", kString, {With({"PFADD", kSampleKey}, Numbered("u", 5000))}});
  samples.push_back(
      {"uncompressed", kString, {{"CONFIG", "SET", "rdbcompression", "no"}, {"SET", kSampleKey, Text(500)}}});
}

void AddLists(std::vector<Sample>& samples) {
  samples.push_back({"list of scalars", kListQuicklist2, {With({"RPUSH", kSampleKey}, Scalars())}});
  samples.push_back({"list of lengths", kListQuicklist2, {With({"RPUSH", kSampleKey}, Lengths())}});
  samples.push_back({"list of many nodes",
                     kListQuicklist2,
                     {{"CONFIG", "SET", "list-max-listpack-size", "5"},
                      With({"RPUSH", kSampleKey}, Numbered("element ", 300))}});
  samples.push_back(
      {"list with plain nodes",
       kListQuicklist2,
       {{"DEBUG", "QUICKLIST-PACKED-THRESHOLD", "8192b"},
        With({"RPUSH", kSampleKey}, {Noise(9000), "small", Text(20000), "12345", Noise(8192)})}});
  samples.push_back({"compressed list",
                     kListQuicklist2,
                     {{"CONFIG", "SET", "list-compress-depth", "1"},
                      {"CONFIG", "SET", "list-max-listpack-size", "20"},
                      With({"RPUSH", kSampleKey}, Numbered("the same words again and again ", 200))}});
}

void AddSets(std::vector<Sample>& samples) {
  samples.push_back({"intset of 16 bits", kSetIntset, {{"SADD", kSampleKey, "-32768", "0", "1", "32767"}}});
  samples.push_back(
      {"intset of 32 bits", kSetIntset, {{"SADD", kSampleKey, "-2147483648", "7", "32768", "2147483647"}}});
  samples.push_back(
      {"intset of 64 bits",
       kSetIntset,
       {{"SADD", kSampleKey, "-9223372036854775808", "1", "2147483648", "9223372036854775807"}}});
  samples.push_back({"intset of 500", kSetIntset, {With({"SADD", kSampleKey}, Numbered("1", 500))}});
  samples.push_back({"set of scalars", kSet, {With({"SADD", kSampleKey}, Scalars())}});
  samples.push_back({"set of lengths", kSet, {With({"SADD", kSampleKey}, Lengths())}});
  samples.push_back({"set of 600 integers", kSet, {With({"SADD", kSampleKey}, Numbered("", 600))}});
  samples.push_back({"set of the empty string", kSet, {{"SADD", kSampleKey, ""}}});
}

void AddHashes(std::vector<Sample>& samples) {
  const Command wide = {"CONFIG", "SET", "hash-max-listpack-value", "100000"};
  const auto scalars = Paired(Scalars(), Numbered("", 100));
  samples.push_back({"hash in a listpack",
                     kHashListpack,
                     {{"HSET", kSampleKey, "", "", "field", "value", "12", "34", "\0"s, "\0\0"s, "-5", ""}}});
  samples.push_back(
      {"hash of scalars in a listpack", kHashListpack, {wide, With({"HSET", kSampleKey}, scalars)}});
  samples.push_back({"hash of lengths in a listpack",
                     kHashListpack,
                     {wide, With({"HSET", kSampleKey}, Paired(Numbered("f", 30), Lengths()))}});
  samples.push_back({"hash of scalars in a table", kHash, {With({"HSET", kSampleKey}, scalars)}});
  samples.push_back(
      {"hash of lengths in a table", kHash, {With({"HSET", kSampleKey}, Paired(Lengths(), Lengths()))}});
  samples.push_back(
      {"hash of 700 fields", kHash, {With({"HSET", kSampleKey}, Paired(Numbered("f", 700), Scalars()))}});
}

void AddZsets(std::vector<Sample>& samples) {
  const auto members = Paired(Scores(), Numbered("m", 100));
  samples.push_back({"zset in a listpack", kZsetListpack, {With({"ZADD", kSampleKey}, members)}});
  samples.push_back(
      {"zset in a skip list",
       kZset2,
       {{"CONFIG", "SET", "zset-max-listpack-entries", "0"}, With({"ZADD", kSampleKey}, members)}});
  samples.push_back({"zset of scalars in a listpack",
                     kZsetListpack,
                     {{"CONFIG", "SET", "zset-max-listpack-value", "100000"},
                      With({"ZADD", kSampleKey}, Paired(std::vector<std::string>(39, "0.5"), Scalars()))}});
  samples.push_back({"zset of scalars in a skip list",
                     kZset2,
                     {With({"ZADD", kSampleKey}, Paired(std::vector<std::string>(39, "0.5"), Scalars()))}});
  samples.push_back(
      {"zset of 300", kZset2, {With({"ZADD", kSampleKey}, Paired(Numbered("1.", 300), Numbered("m", 300)))}});
  samples.push_back(
      {"positions", kZsetListpack, {{"GEOADD", kSampleKey, "13.361389", "38.115556", "Palermo"}}});
}

void AddStreams(std::vector<Sample>& samples) {
  const std::string k = kSampleKey;
  const std::string last = "18446744073709551615";
  samples.push_back({"stream of one", kStreamListpacks2, {{"XADD", k, "1-1", "f", "v"}}});
  samples.push_back({"stream with same and other fields",
                     kStreamListpacks2,
                     {{"XADD", k, "1-5", "a", "1", "b", ""},
                      {"XADD", k, "1-6", "a", "2", "b", "x"},
                      {"XADD", k, "2-0", "c", "3"},
                      {"XADD", k, "3-1", "a", "4", "b", "5"},
                      {"XADD", k, "3-2", "12", "-7"},
                      {"XADD", k, "4-0", "b", "1", "a", "2"}}});
  samples.push_back({"stream with negative differences",
                     kStreamListpacks2,
                     {{"XADD", k, "5-900", "a", "1"},
                      {"XADD", k, "6-0", "a", "2"},
                      {"XADD", k, "7-" + last, "a", "3"},
                      {"XADD", k, "8-1", "a", "4"},
                      {"XADD", k, last + "-" + last, "a", "5"}}});
  samples.push_back({"stream of scalars",
                     kStreamListpacks2,
                     {With({"XADD", k, "1-1"}, Paired(Scalars(), Scalars())),
                      With({"XADD", k, "1-2"}, Paired(Scalars(), Numbered("", 9)))}});
  samples.push_back({"stream with deleted entries",
                     kStreamListpacks2,
                     {{"XADD", k, "1-1", "a", "1"},
                      {"XADD", k, "2-1", "a", "2"},
                      {"XADD", k, "3-1", "b", "3"},
                      {"XADD", k, "4-1", "a", "4"},
                      {"XDEL", k, "1-1", "3-1"}}});
  samples.push_back(
      {"emptied stream", kStreamListpacks2, {{"XADD", k, "1-1", "a", "1"}, {"XDEL", k, "1-1"}}});
  samples.push_back(
      {"empty stream with a group", kStreamListpacks2, {{"XGROUP", "CREATE", k, "g", "$", "MKSTREAM"}}});
  samples.push_back({"stream with groups",
                     kStreamListpacks2,
                     {{"XADD", k, "1-1", "a", "1"},
                      {"XADD", k, "2-1", "a", "2"},
                      {"XADD", k, "3-1", "a", "3"},
                      {"XADD", k, "4-1", "a", "4"},
                      {"XADD", k, "5-1", "a", "5"},
                      {"XADD", k, "6-1", "a", "6"},
                      {"XGROUP", "CREATE", k, "all", "0"},
                      {"XGROUP", "CREATE", k, "from the middle", "3-1"},
                      {"XGROUP", "CREATE", k, "", "$"},
                      {"XGROUP", "CREATE", k, "counted", "2-1", "ENTRIESREAD", "2"},
                      {"XGROUP", "CREATECONSUMER", k, "all", "idle one"},
                      {"XREADGROUP", "GROUP", "all", "first", "COUNT", "3", "STREAMS", k, ">"},
                      {"XREADGROUP", "GROUP", "all", "12", "COUNT", "2", "STREAMS", k, ">"},
                      {"XREADGROUP", "GROUP", "from the middle", "\0\xff"s, "STREAMS", k, ">"},
                      {"XACK", k, "all", "2-1"},
                      {"XCLAIM", k, "all", "12", "0", "3-1", "TIME", "1700000000123", "RETRYCOUNT", "70000"},
                      {"XDEL", k, "5-1"}}});
  Sample long_stream = {
      "stream of many listpacks", kStreamListpacks2, {{"XGROUP", "CREATE", k, "g", "$", "MKSTREAM"}}};
  for (int i = 1; i <= 450; ++i) {
    const std::string n = std::to_string(i);
    long_stream.commands.push_back(i % 7 == 0
                                       ? Command{"XADD", k, n + "-0", "other", n, "field", "x"}
                                       : Command{"XADD", k, n + "-0", "user", n, "event", "login " + n});
    if (i % 5 == 0) long_stream.commands.push_back({"XDEL", k, std::to_string(i - 2) + "-0"});
  }
  long_stream.commands.push_back({"XREADGROUP", "GROUP", "g", "c1", "COUNT", "200", "STREAMS", k, ">"});
  long_stream.commands.push_back({"XREADGROUP", "GROUP", "g", "c2", "COUNT", "50", "STREAMS", k, ">"});
  samples.push_back(long_stream);
  samples.push_back({"stream with set counters",
                     kStreamListpacks2,
                     {{"XADD", k, "1-1", "a", "1"},
                      {"XSETID", k, "99-7", "ENTRIESADDED", "5000000000", "MAXDELETEDID", "98-3"}}});
}

}  // namespace

std::vector<Sample> Samples() {
  std::vector<Sample> samples;
  AddStrings(samples);
  AddLists(samples);
  AddSets(samples);
  AddHashes(samples);
  AddZsets(samples);
  AddStreams(samples);
  return samples;
}

std::vector<std::string> SampleServerArguments() { return {"--enable-debug-command", "yes"}; }

std::string DumpSample(RedisClient& redis, const Sample& sample) {
  redis.Command({"FLUSHALL"});
  redis.Command({"DEBUG", "QUICKLIST-PACKED-THRESHOLD", "1gb"});
  redis.Command({"CONFIG", "SET", "rdbcompression", "yes", "list-max-listpack-size", "-2",
                 "list-compress-depth", "0", "hash-max-listpack-value", "64", "zset-max-listpack-value", "64",
                 "zset-max-listpack-entries", "128"});
  for (const Command& command : sample.commands) redis.Command(command);
  return redis.String({"DUMP", kSampleKey});
}

std::string Framed(Bytes body, unsigned version) {
  std::string payload(body);
  payload.push_back(static_cast<char>(version));
  payload.push_back(static_cast<char>(version >> 8));
  return payload + std::string(8, '\0');
}

Bytes Body(Bytes payload) { return payload.substr(0, payload.size() - 10); }

std::vector<std::string> FixturePayloads() {
  const char* const directory = std::getenv("PRM_RDB_FIXTURES");
  if (directory == nullptr) return {};
  std::ifstream file(std::string(directory) + "/redis-7.0.15/all_types_v10.dump_payloads.json");
  std::vector<std::string> payloads;
  // One line for each key: "name": "hexadecimal digits", with null for a key that has expired.
  for (std::string line; std::getline(file, line);) {
    const size_t start = line.rfind(": \"");
    const size_t end = line.rfind('"');
    if (start == std::string::npos || end <= start + 3) continue;
    std::string payload;
    for (size_t i = start + 3; i + 1 < end; i += 2) {
      payload.push_back(static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16)));
    }
    payloads.push_back(payload);
  }
  return payloads;
}

}  // namespace prm::test
