#include "redis/command_table.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <iterator>

#include "redis/error_words.h"

namespace prm::redis {

namespace {

enum class Shape : unsigned char {
  kFixed,     // from first to last, every step-th; last counts from the end where it is negative
  kNone,      // no keys, or they are not written to
  kNumbered,  // the argument `first` is their number; they follow it, every step-th
  kStore,     // after STORE, or STOREDIST
  kMigrate,   // the third argument, or all after KEYS
  kHidden,
};

struct Row {
  const char* name;
  Shape shape;
  int first;
  int last;
  int step;
};

constexpr Row One(const char* name) { return {name, Shape::kFixed, 1, 1, 1}; }
constexpr Row Fixed(const char* name, int first, int last, int step = 1) {
  return {name, Shape::kFixed, first, last, step};
}
constexpr Row None(const char* name) { return {name, Shape::kNone, 0, 0, 0}; }
constexpr Row Hidden(const char* name) { return {name, Shape::kHidden, 0, 0, 0}; }

// In ascending order. Sources: COMMAND of redis 7.0.15; for later ones, src/commands/*.json of redis 8.10 and
// valkey 9.1. Of several keys only those that are written to.
constexpr Row kCommands[] = {
    One("append"),
    One("ardel"),  // Redis 8.8
    One("ardelrange"),
    One("arinsert"),
    One("armset"),
    One("arring"),
    One("arseek"),
    One("arset"),
    One("bitfield"),
    Fixed("bitop", 2, 2),
    None("bless"),  // Redis 8.12: a flag that is no part of the value
    Fixed("blmove", 1, 2),
    {"blmpop", Shape::kNumbered, 2, 0, 1},
    Fixed("blpop", 1, -2),
    Fixed("brpop", 1, -2),
    Fixed("brpoplpush", 1, 2),
    {"bzmpop", Shape::kNumbered, 2, 0, 1},
    Fixed("bzpopmax", 1, -2),
    Fixed("bzpopmin", 1, -2),
    Hidden("cluster"),  // FLUSHSLOT, SETSLOT, SYNCSLOTS: Redis 8.4, Valkey 8.0
    Fixed("copy", 2, 2),
    One("decr"),
    One("decrby"),
    Fixed("del", 1, -1),
    One("delex"),    // Redis 8.4
    One("delifeq"),  // Valkey 9.0
    Hidden("eval"),  // in the stream before 5.0
    Hidden("evalsha"),
    None("exec"),
    One("expire"),
    One("expireat"),
    Hidden("fcall"),
    None("flushall"),
    None("flushdb"),
    None("function"),
    One("geoadd"),
    {"georadius", Shape::kStore, 6, 0, 0},
    {"georadiusbymember", Shape::kStore, 5, 0, 0},
    One("geosearchstore"),
    One("getdel"),
    One("getex"),
    One("getset"),
    One("hdel"),
    One("hexpire"),  // Redis 7.4, Valkey 9.0
    One("hexpireat"),
    One("hgetdel"),  // Redis 8.0, Valkey 9.1
    One("hgetex"),
    One("hincrby"),
    One("hincrbyfloat"),
    One("hmset"),
    One("hpersist"),
    One("hpexpire"),
    One("hpexpireat"),
    One("hset"),
    One("hsetex"),
    One("hsetnx"),
    One("incr"),
    One("incrby"),
    One("incrbyfloat"),
    One("increx"),  // Redis 8.8
    One("linsert"),
    Fixed("lmove", 1, 2),
    Fixed("lmovem", 1, 2),  // Redis 8.10
    {"lmpop", Shape::kNumbered, 1, 0, 1},
    One("lpop"),
    One("lpush"),
    One("lpushx"),
    One("lrem"),
    One("lset"),
    One("ltrim"),
    {"migrate", Shape::kMigrate, 3, 0, 0},
    One("move"),
    Fixed("mset", 1, -1, 2),
    {"msetex", Shape::kNumbered, 1, 0, 2},  // Redis 8.4, Valkey 9.1
    Fixed("msetnx", 1, -1, 2),
    None("multi"),
    One("persist"),
    One("pexpire"),
    One("pexpireat"),
    One("pfadd"),
    Fixed("pfcount", 1, -1),  // keeps what it has counted in the value
    Fixed("pfdebug", 2, 2),
    One("pfmerge"),
    None("ping"),
    One("psetex"),
    None("publish"),
    Fixed(kChangedCommand, 1, -1),
    Fixed("rename", 1, 2),
    Fixed("renamenx", 1, 2),
    None("replconf"),
    One("restore"),
    One("restore-asking"),
    One("rpop"),
    Fixed("rpoplpush", 1, 2),
    One("rpush"),
    One("rpushx"),
    One("sadd"),
    None("script"),
    One("sdiffstore"),
    None("select"),
    One("set"),
    One("setbit"),
    One("setex"),
    One("setnx"),
    One("setrange"),
    One("sinterstore"),
    Fixed("smove", 1, 2),
    {"sort", Shape::kStore, 2, 0, 0},
    One("spop"),
    None("spublish"),
    One("srem"),
    One("sunionstore"),
    None("swapdb"),
    Hidden("trimslots"),  // Redis 8.4, clusters
    Fixed("unlink", 1, -1),
    One("vadd"),  // Redis 8.0
    One("vrem"),
    One("vsetattr"),
    One("xack"),
    One("xackdel"),  // Redis 8.2
    One("xadd"),
    One("xautoclaim"),
    One("xcfgset"),  // Redis 8.6
    One("xclaim"),
    One("xdel"),
    One("xdelex"),  // Redis 8.2
    Fixed("xgroup", 2, 2),
    One("xidmprecord"),  // Redis 8.6
    One("xnack"),        // Redis 8.8
    One("xsetid"),
    One("xtrim"),
    One("zadd"),
    One("zdiffstore"),
    One("zincrby"),
    One("zinterstore"),
    {"zmpop", Shape::kNumbered, 1, 0, 1},
    One("zpopmax"),
    One("zpopmin"),
    One("zrangestore"),
    One("zrem"),
    One("zremrangebylex"),
    One("zremrangebyrank"),
    One("zremrangebyscore"),
    One("zunionstore"),
};

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// nullptr: the table does not have it.
const Row* Find(Bytes name) {
  const auto is_before = [](const Row& row, Bytes wanted) {
    const Bytes own = row.name;
    return std::lexicographical_compare(own.begin(), own.end(), wanted.begin(), wanted.end(),
                                        [](char a, char b) { return Lower(a) < Lower(b); });
  };
  const Row* const row = std::lower_bound(std::begin(kCommands), std::end(kCommands), name, is_before);
  return row != std::end(kCommands) && IsSameWord(row->name, name) ? row : nullptr;
}

// Appends the positions from first to last; false if there is no such argument.
bool AddRange(size_t first, size_t last, size_t step, size_t count, std::vector<size_t>& positions) {
  if (first >= count || last >= count || last < first) return false;
  for (size_t at = first; at <= last; at += step) positions.push_back(at);
  return true;
}

bool AddNumbered(const Row& row, const std::vector<Bytes>& arguments, size_t count,
                 std::vector<size_t>& positions) {
  const auto at = static_cast<size_t>(row.first);
  const auto step = static_cast<size_t>(row.step);
  if (at >= arguments.size()) return false;
  size_t keys = 0;
  const char* const end = arguments[at].data() + arguments[at].size();
  const auto [parsed, failed] = std::from_chars(arguments[at].data(), end, keys);
  if (failed != std::errc() || parsed != end || keys == 0 || keys > count / step) return false;
  return AddRange(at + 1, at + 1 + (keys - 1) * step, step, count, positions);
}

// The options of SORT and GEORADIUS from `first` on. Given twice, the last STORE counts.
void AddStore(size_t first, const std::vector<Bytes>& arguments, std::vector<size_t>& positions) {
  for (size_t at = first; at + 1 < arguments.size(); ++at) {
    if (IsSameWord(arguments[at], "STORE") || IsSameWord(arguments[at], "STOREDIST")) {
      positions.assign(1, ++at);
    } else if (IsSameWord(arguments[at], "BY") || IsSameWord(arguments[at], "GET")) {
      ++at;
    } else if (IsSameWord(arguments[at], "LIMIT")) {
      at += 2;
    }
  }
}

}  // namespace

bool IsSameWord(Bytes a, Bytes b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return Lower(x) == Lower(y); });
}

KeysFound FindWrittenKeys(const std::vector<Bytes>& arguments, size_t count, std::vector<size_t>& positions) {
  positions.clear();
  const Row* const row = arguments.empty() ? nullptr : Find(arguments[0]);
  if (row == nullptr) return KeysFound::kUnknown;
  const auto first = static_cast<size_t>(row->first);
  bool is_valid = true;
  switch (row->shape) {
    case Shape::kNone:
      break;
    case Shape::kHidden:
      return KeysFound::kHidden;
    case Shape::kFixed: {
      const auto from_end = static_cast<size_t>(-std::min(row->last, 0));
      const size_t last = row->last >= 0 ? static_cast<size_t>(row->last) : count - std::min(from_end, count);
      is_valid = AddRange(first, last, static_cast<size_t>(row->step), count, positions);
      break;
    }
    case Shape::kNumbered:
      is_valid = AddNumbered(*row, arguments, count, positions);
      break;
    case Shape::kStore:
      AddStore(first, arguments, positions);
      break;
    case Shape::kMigrate: {
      if (arguments.size() > first && !arguments[first].empty()) {
        positions.push_back(first);
        break;
      }
      const auto keys = std::find_if(arguments.begin(), arguments.end(),
                                     [](Bytes argument) { return IsSameWord(argument, "KEYS"); });
      is_valid = AddRange(static_cast<size_t>(keys - arguments.begin()) + 1, count - 1, 1, count, positions);
      break;
    }
  }
  return is_valid ? KeysFound::kAll : KeysFound::kInvalid;
}

Result<std::string> FetchName(Connection& connection, Bytes command) {
  connection.Append({"COMMAND", "INFO", command}, kLargeReply);
  const Result<Reply> reply = connection.Receive();
  if (!reply.ok()) return reply.error();
  if (reply.value().IsError()) return connection.ToError(reply.value());
  const auto name = reply.value().IsArray() ? reply.value().element(0).element(0).String() : std::nullopt;
  return std::string(name.value_or(command));
}

Result<std::vector<std::string>> FetchKeys(Connection& connection,
                                           const std::vector<std::string>& arguments) {
  std::vector<Bytes> words = {"COMMAND", "GETKEYS"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  connection.Append(words.data(), words.size(), kLargeReply);
  const Result<Reply> reply = connection.Receive();
  if (!reply.ok()) return reply.error();
  if (reply.value().IsError()) {
    const Error error = connection.ToError(reply.value());
    if (error.detail.find(kNoKeyArguments) != std::string::npos) return std::vector<std::string>();
    return error;
  }
  if (!reply.value().IsArray()) return connection.UnknownReply("COMMAND");
  std::vector<std::string> keys;
  for (size_t i = 0; i < reply.value().size(); ++i) {
    const auto key = reply.value().element(i).String();
    if (!key) return connection.UnknownReply("COMMAND");
    keys.emplace_back(*key);
  }
  return keys;
}

}  // namespace prm::redis
