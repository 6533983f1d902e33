// Commands that give a key a whole value.
#include "redis/value_commands.h"

#include <gtest/gtest.h>

namespace prm::redis {
namespace {

using Commands = std::vector<CommandArguments>;

Commands CommandsFor(const WholeValue& value) {
  EXPECT_TRUE(IsComplete(value));
  Commands commands;
  AppendWholeValue("k", value, commands);
  return commands;
}

TEST(ValueCommandsTest, EachType) {
  EXPECT_EQ(CommandsFor({"string", {"v"}, {}}), (Commands{{"SET", "k", "v"}}));
  EXPECT_EQ(CommandsFor({"hash", {"f", "v"}, {}}), (Commands{{"UNLINK", "k"}, {"HSET", "k", "f", "v"}}));
  EXPECT_EQ(CommandsFor({"list", {"a", "b"}, {}}), (Commands{{"UNLINK", "k"}, {"RPUSH", "k", "a", "b"}}));
  EXPECT_EQ(CommandsFor({"set", {"a"}, {}}), (Commands{{"UNLINK", "k"}, {"SADD", "k", "a"}}));
  EXPECT_EQ(CommandsFor({"zset", {"a", "1", "b", "2"}, {}}),
            (Commands{{"UNLINK", "k"}, {"ZADD", "k", "1", "a", "2", "b"}}));
}

TEST(ValueCommandsTest, ExpiryComesLast) {
  EXPECT_EQ(CommandsFor({"string", {""}, 5}), (Commands{{"SET", "k", ""}, {"PEXPIREAT", "k", "5"}}));
  EXPECT_EQ(CommandsFor({"set", {"a"}, 5}),
            (Commands{{"UNLINK", "k"}, {"SADD", "k", "a"}, {"PEXPIREAT", "k", "5"}}));
}

TEST(ValueCommandsTest, EmptyCollectionsAreNoKeys) {
  for (const char* type : {"hash", "list", "set", "zset"})
    EXPECT_EQ(CommandsFor({type, {}, 5}), (Commands{{"UNLINK", "k"}})) << type;
}

TEST(ValueCommandsTest, PairsAreNotDividedBetweenCommands) {
  for (const char* type : {"hash", "zset", "list"}) {
    const Commands commands = CommandsFor({type, std::vector<std::string>(2002, "1"), {}});
    ASSERT_EQ(commands.size(), 4U) << type;
    EXPECT_EQ(commands[1].size(), 1002U);
    EXPECT_EQ(commands[2].size(), 1002U);
    EXPECT_EQ(commands[3].size(), 4U);
  }
}

TEST(ValueCommandsTest, WhatNoKeyCanHave) {
  EXPECT_FALSE(IsComplete({"string", {}, {}}));
  EXPECT_FALSE(IsComplete({"string", {"a", "b"}, {}}));
  EXPECT_FALSE(IsComplete({"hash", {"f"}, {}}));
  EXPECT_FALSE(IsComplete({"zset", {"m", "1", "n"}, {}}));
  EXPECT_FALSE(IsComplete({"stream", {}, {}}));
  EXPECT_FALSE(IsComplete({"", {}, {}}));
}

}  // namespace
}  // namespace prm::redis
