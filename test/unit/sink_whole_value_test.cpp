// Commands that give a key a whole value.
#include "sink/whole_value.h"

#include <gtest/gtest.h>

namespace prm::sink {
namespace {

using Commands = std::vector<std::vector<std::string>>;

class Collector : public CommandSink {
 public:
  void OnCommand(const std::vector<Bytes>& arguments) override {
    commands.emplace_back(arguments.begin(), arguments.end());
  }
  Commands commands;
};

Commands CommandsFor(const WholeValue& value, bool has_field_expiries = false) {
  EXPECT_TRUE(IsComplete(value));
  Collector collector;
  CommandAbilities abilities;
  abilities.has_field_expiries = has_field_expiries;
  Interrupts interrupts;
  EXPECT_TRUE(WriteWholeValue("k", value, abilities, interrupts, collector).ok());
  return collector.commands;
}

TEST(WholeValueTest, EachType) {
  EXPECT_EQ(CommandsFor({"string", {"v"}}), (Commands{{"SET", "k", "v"}}));
  EXPECT_EQ(CommandsFor({"hash", {"f", "v"}}), (Commands{{"UNLINK", "k"}, {"HSET", "k", "f", "v"}}));
  EXPECT_EQ(CommandsFor({"list", {"a", "b"}}), (Commands{{"UNLINK", "k"}, {"RPUSH", "k", "a", "b"}}));
  EXPECT_EQ(CommandsFor({"set", {"a"}}), (Commands{{"UNLINK", "k"}, {"SADD", "k", "a"}}));
  EXPECT_EQ(CommandsFor({"zset", {"a", "1", "b", "-inf"}}),
            (Commands{{"UNLINK", "k"}, {"ZADD", "k", "1", "a", "-inf", "b"}}));
}

TEST(WholeValueTest, ExpiryComesLast) {
  EXPECT_EQ(CommandsFor({"string", {""}, 5}), (Commands{{"SET", "k", ""}, {"PEXPIREAT", "k", "5"}}));
  EXPECT_EQ(CommandsFor({"set", {"a"}, 5}),
            (Commands{{"UNLINK", "k"}, {"SADD", "k", "a"}, {"PEXPIREAT", "k", "5"}}));
}

TEST(WholeValueTest, ExpiriesOfFields) {
  const WholeValue value = {"hash", {"f", "v", "g", "w"}, std::nullopt, {std::nullopt, 7}};
  EXPECT_EQ(CommandsFor(value, true), (Commands{{"UNLINK", "k"},
                                                {"HSET", "k", "f", "v", "g", "w"},
                                                {"HPEXPIREAT", "k", "7", "FIELDS", "1", "g"}}));
  Collector collector;
  Interrupts interrupts;
  const Status status = WriteWholeValue("k", value, {}, interrupts, collector);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kUnsupported);
}

TEST(WholeValueTest, EmptyCollectionsAreNoKeys) {
  for (const char* type : {"hash", "list", "set", "zset"})
    EXPECT_EQ(CommandsFor({type, {}, 5}), (Commands{{"UNLINK", "k"}})) << type;
}

TEST(WholeValueTest, PairsAreNotDividedBetweenCommands) {
  for (const char* type : {"hash", "zset", "list"}) {
    const Commands commands = CommandsFor({type, std::vector<std::string>(2002, "1")});
    ASSERT_EQ(commands.size(), 4U) << type;
    EXPECT_EQ(commands[1].size(), 1002U);
    EXPECT_EQ(commands[2].size(), 1002U);
    EXPECT_EQ(commands[3].size(), 4U);
  }
}

TEST(WholeValueTest, WhatNoKeyCanHave) {
  EXPECT_FALSE(IsComplete({"string"}));
  EXPECT_FALSE(IsComplete({"string", {"a", "b"}}));
  EXPECT_FALSE(IsComplete({"hash", {"f"}}));
  EXPECT_FALSE(IsComplete({"hash", {"f", "v"}, std::nullopt, {1, 2}}));
  EXPECT_FALSE(IsComplete({"zset", {"m", "1", "n"}}));
  for (const char* score : {"", "x", "1x", "nan"}) EXPECT_FALSE(IsComplete({"zset", {"m", score}})) << score;
  EXPECT_FALSE(IsComplete({"stream"}));
  EXPECT_FALSE(IsComplete({""}));
}

}  // namespace
}  // namespace prm::sink
