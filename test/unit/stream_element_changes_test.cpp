// The changes of commands to single elements: as redis-server 7.0 and its successors send them, and as they
// do not.
#include "stream/element_changes.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "rdb/dump.h"
#include "rdb/json.h"

namespace prm::stream {
namespace {

// The elements of a payload: "field=value@expiry", "member", "member:score", "id name=value".
class Texts : public rdb::ValueVisitor {
 public:
  void OnHashField(Bytes field, Bytes value) override { Add(std::string(field) + "=" + std::string(value)); }
  void OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) override {
    Add(std::string(field) + "=" + std::string(value) + "@" + std::to_string(expires_at_ms));
  }
  void OnSetMember(Bytes member) override { Add(std::string(member)); }
  void OnZsetMember(Bytes member, double score) override {
    Add(std::string(member) + ":" + std::to_string(score));
  }
  void OnStreamEntry(rdb::StreamId id, const rdb::StreamFields& fields) override {
    std::string entry = rdb::FormatStreamId(id);
    for (const auto& [name, value] : fields) entry += " " + std::string(name) + "=" + std::string(value);
    Add(entry);
  }
  std::string text;

 private:
  void Add(const std::string& element) { text += (text.empty() ? "" : ", ") + element; }
};

std::string TextOf(const std::string& payload) {
  Texts texts;
  const Status decoded = rdb::DecodeDump(payload, texts);
  EXPECT_TRUE(decoded.ok());
  return texts.text;
}

std::optional<ElementChanges> ChangesOf(const std::vector<std::string>& words) {
  redis::StreamCommand command;
  for (const std::string& word : words) command.arguments.push_back(word);
  command.count = words.size();
  return ElementChangesOf(command);
}

// "states | gone", "nothing" for a command that changes none, "?" for one that does not say.
std::string Take(const std::vector<std::string>& words) {
  const auto changes = ChangesOf(words);
  if (!changes) return "?";
  if (!changes->type) return "nothing";
  return (changes->HasStates() ? TextOf(EncodeStates(*changes)) : "") + " | " +
         (changes->HasGone() ? TextOf(EncodeGone(*changes)) : "");
}

std::string Ends(const std::vector<std::string>& words) {
  const auto changes = ChangesOf(words);
  if (!changes) return "?";
  const EndChanges& ends = changes->ends;
  if (ends.newest) return "newest " + std::to_string(*ends.newest);
  if (ends.from) return "from " + rdb::FormatStreamId(*ends.from);
  if (ends.popped > 0) return "pop " + std::to_string(ends.popped);
  std::string text = ends.pushed.empty() ? "none" : "push";
  for (const std::string& value : ends.pushed) text += " " + value;
  return text;
}

TEST(ElementChanges, Hashes) {
  EXPECT_EQ(Take({"HSET", "h", "a", "1", "b", "2"}), "a=1, b=2 | ");
  EXPECT_EQ(Take({"hmset", "h", "a", "1", "a", "2"}), "a=2 | ");
  EXPECT_EQ(Take({"HSET", "h", "", ""}), "= | ");
  EXPECT_EQ(Take({"HDEL", "h", "a", "b"}), " | a=, b=");
  EXPECT_EQ(Take({"HSETEX", "h", "PXAT", "1800000000123", "FIELDS", "2", "a", "1", "b", "2"}),
            "a=1@1800000000123, b=2@1800000000123 | ");
  EXPECT_EQ(Take({"HSETEX", "h", "FNX", "EXAT", "1800000000", "FIELDS", "1", "a", "1"}),
            "a=1@1800000000000 | ");
  EXPECT_EQ(Take({"HSETEX", "h", "FIELDS", "1", "a", "1"}), "a=1 | ");
  EXPECT_EQ(Take({"HSETEX", "h", "KEEPTTL", "FIELDS", "1", "a", "1"}), "?");
  EXPECT_EQ(Take({"HSETEX", "h", "EX", "10", "FIELDS", "1", "a", "1"}), "?");
  EXPECT_EQ(Take({"HSETEX", "h", "FIELDS", "2", "a", "1"}), "?");
  EXPECT_EQ(Take({"HSETEX", "h", "FIELDS", "1", "a", "1", "KEEPTTL"}), "?");
  EXPECT_EQ(Take({"HSETEX", "h", "FIELDS", "9223372036854775809", "a", "1"}), "?");
  EXPECT_EQ(Take({"HGETDEL", "h", "FIELDS", "2", "a", "b"}), " | a=, b=");
  EXPECT_EQ(Take({"HGETDEL", "h", "FIELDS", "1", "a", "b"}), "?");
  for (const char* name : {"HINCRBY", "HINCRBYFLOAT", "HSETNX"}) EXPECT_EQ(Take({name, "h", "a", "1"}), "?");
  EXPECT_EQ(Take({"HPEXPIREAT", "h", "1", "FIELDS", "1", "a"}), "?");
}

TEST(ElementChanges, Sets) {
  EXPECT_EQ(Take({"SADD", "s", "b", "a"}), "a, b | ");
  EXPECT_EQ(Take({"SREM", "s", "a"}), " | a");
  EXPECT_EQ(Take({"SPOP", "s"}), "?");
  EXPECT_EQ(Take({"SMOVE", "s", "t", "a"}), "?");
}

TEST(ElementChanges, SortedSets) {
  EXPECT_EQ(Take({"zadd", "z", "1", "a"}), "a:1.000000 | ");
  EXPECT_EQ(TextOf(EncodeStates(*ChangesOf({"ZADD", "z", "CH", "-inf", "a"}))), "a:-inf");
  for (const char* option : {"NX", "XX", "GT", "LT", "INCR"})
    EXPECT_EQ(Take({"ZADD", "z", option, "1", "a"}), "?");
  for (const char* score : {"0x10", "nan", "+1", "one"}) EXPECT_EQ(Take({"ZADD", "z", score, "a"}), "?");
  EXPECT_EQ(Take({"ZADD", "z", "1", "a", "2"}), "?");
  EXPECT_EQ(Take({"ZREM", "z", "a"}), " | a:0.000000");
  EXPECT_EQ(Take({"ZINCRBY", "z", "1", "a"}), "?");
}

TEST(ElementChanges, Streams) {
  EXPECT_EQ(Take({"XADD", "x", "5-1", "a", "1", "a", "2"}), "5-1 a=1 a=2 | ");
  EXPECT_EQ(Take({"XADD", "x", "NOMKSTREAM", "5-1", "a", "1"}), "5-1 a=1 | ");
  for (const char* id : {"*", "5-*", "5", "5-", "-1", "5-1-2"})
    EXPECT_EQ(Take({"XADD", "x", id, "a", "1"}), "?");
  for (const char* count : {"~", "-1", "x", ""})
    EXPECT_EQ(Take({"XADD", "x", "MAXLEN", count, "5-1", "a", "1"}), "?");
  EXPECT_EQ(Take({"XADD", "x", "ACKED", "MAXLEN", "10", "5-1", "a", "1"}), "?");
  EXPECT_EQ(Take({"XADD", "x", "IDMP", "p", "i", "5-1", "a", "1"}), "?");
  EXPECT_EQ(Take({"XADD", "x", "5-1", "a"}), "?");
  EXPECT_EQ(Take({"XDEL", "x", "5-1", "7"}), " | 5-1 =, 7-0 =");
  EXPECT_EQ(Take({"XDELEX", "x", "IDS", "2", "5-1", "7"}), " | 5-1 =, 7-0 =");
  EXPECT_EQ(Take({"XDELEX", "x", "DELREF", "IDS", "1", "5-1"}), " | 5-1 =");
  EXPECT_EQ(Take({"XDELEX", "x", "ACKED", "IDS", "1", "5-1"}), "?");
  EXPECT_EQ(Take({"XDELEX", "x", "IDS", "2", "5-1"}), "?");
  EXPECT_EQ(Take({"XDELEX", "x", "IDS", "0"}), "?");
  EXPECT_EQ(Take({"XACKDEL", "x", "g", "IDS", "1", "5-1"}), "?");
  EXPECT_EQ(Take({"XTRIM", "x", "MAXLEN", "~", "5"}), "?");
  EXPECT_EQ(Take({"XTRIM", "x", "MAXLEN"}), "?");
  EXPECT_EQ(Take({"XTRIM", "x", "MAXLEN", "5", "ACKED"}), "?");
}

TEST(ElementChanges, EndsOfStreams) {
  EXPECT_EQ(Ends({"XADD", "x", "MAXLEN", "=", "10", "5-1", "a", "1"}), "newest 10");
  EXPECT_EQ(Ends({"XADD", "x", "KEEPREF", "MINID", "4-2", "NOMKSTREAM", "5-1", "a", "1"}), "from 4-2");
  EXPECT_EQ(Ends({"XTRIM", "x", "MINID", "=", "4"}), "from 4-0");
  EXPECT_EQ(Ends({"XTRIM", "x", "maxlen", "0", "DELREF"}), "newest 0");
}

TEST(ElementChanges, EndsOfLists) {
  EXPECT_EQ(Ends({"RPUSH", "l", "a", "b"}), "push a b");
  EXPECT_EQ(Ends({"RPUSHX", "l", ""}), "push ");
  EXPECT_EQ(Ends({"RPOP", "l"}), "pop 1");
  EXPECT_EQ(Ends({"RPOP", "l", "7"}), "pop 7");
  for (const char* name : {"LPUSH", "LPUSHX", "LREM", "LSET"}) EXPECT_EQ(Take({name, "l", "1", "a"}), "?");
  for (const char* name : {"LPOP", "RPOPLPUSH"}) EXPECT_EQ(Take({name, "l"}), "?");
}

TEST(ElementChanges, WhatChangesNone) {
  EXPECT_EQ(Take({"PEXPIREAT", "h", "1800000000000"}), "nothing");
  EXPECT_EQ(Take({"PERSIST", "h"}), "nothing");
  EXPECT_EQ(Take({"XACK", "x", "g", "5-1"}), "nothing");
  EXPECT_EQ(Take({"XNACK", "x", "g", "FAIL", "IDS", "1", "5-1"}), "nothing");
  EXPECT_EQ(Take({"XGROUP", "SETID", "x", "g", "5-1"}), "nothing");
  EXPECT_EQ(Take({"XGROUP", "CREATE", "x", "g", "$", "MKSTREAM"}), "?");
  EXPECT_EQ(Take({"HSET", "h"}), "?");
  EXPECT_EQ(Take({"HSET"}), "?");
}

TEST(ElementChanges, AnArgumentThatWasNotKept) {
  redis::StreamCommand command;
  command.arguments = {"HSET", "h", "a", Bytes()};
  command.count = 4;
  EXPECT_FALSE(ElementChangesOf(command));
  command.arguments.pop_back();
  EXPECT_FALSE(ElementChangesOf(command));
}

TEST(ElementChanges, TheLastStateCounts) {
  ElementChanges changes = *ChangesOf({"HSET", "h", "a", "1", "b", "1"});
  EXPECT_TRUE(Merge(*ChangesOf({"HDEL", "h", "a"}), changes));
  EXPECT_TRUE(Merge(*ChangesOf({"HSET", "h", "c", "3"}), changes));
  EXPECT_TRUE(Merge(*ChangesOf({"PERSIST", "h"}), changes));
  EXPECT_EQ(TextOf(EncodeStates(changes)), "b=1, c=3");
  EXPECT_EQ(TextOf(EncodeGone(changes)), "a=");
  EXPECT_FALSE(Merge(*ChangesOf({"SADD", "h", "a"}), changes));
}

TEST(ElementChanges, EntriesInTheOrderOfTheirIds) {
  ElementChanges changes = *ChangesOf({"XADD", "x", "256-0", "a", "2"});
  EXPECT_TRUE(Merge(*ChangesOf({"XADD", "x", "255-18446744073709551615", "a", "1"}), changes));
  EXPECT_EQ(TextOf(EncodeStates(changes)), "255-18446744073709551615 a=1, 256-0 a=2");
}

}  // namespace
}  // namespace prm::stream
