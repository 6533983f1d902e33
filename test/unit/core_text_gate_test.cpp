#include "core/text_gate.h"

#include <gtest/gtest.h>

#include <string>

namespace prm {
namespace {

TEST(TextGateTest, MakesTextPrintableAndShort) {
  const TextGate gate;
  EXPECT_EQ(gate.Pass("redis 7.0"), "redis 7.0");
  EXPECT_EQ(gate.Pass("a\nLOG:  forged\xff\x00"
                      "b"),
            "a\\x0aLOG:  forged\\xff");
  EXPECT_EQ(gate.Pass(Bytes("a\0b\\", 4)), "a\\x00b\\\\");
  EXPECT_EQ(gate.Pass(std::string(300, 'x')), std::string(200, 'x') + "...");
  EXPECT_EQ(gate.Pass("caf\xc3\xa9", 3), "caf...");
}

TEST(TextGateTest, MasksASecretAndItsParts) {
  const TextGate gate({"", "topsecret", "a\"b'c\\d\ne"});
  EXPECT_EQ(gate.Pass("ERR invalid password 'topsecret' given"), "ERR invalid password '***' given");
  EXPECT_EQ(gate.Pass("topsecrettopsecret"), "***");
  EXPECT_EQ(gate.Pass("with args: topsec"), "with args: ***");
  EXPECT_EQ(gate.Pass("...secret..."), "...***...");
  EXPECT_EQ(gate.Pass("TopSecret"), "***");
  EXPECT_EQ(gate.Pass("t\\o\\p\\secret"), "***");
  EXPECT_EQ(gate.Pass("'top'secret'"), "'***'");
  EXPECT_EQ(gate.Pass("\\x74\\x6fpsec"), "***");
  EXPECT_EQ(gate.Pass("a\\\"b'c\\\\d\\ne"), "***");
  EXPECT_EQ(gate.Pass("a\"b'c\\d\ne"), "***");
  EXPECT_EQ(gate.Pass("to top sec ret"), "to top sec ret");
}

TEST(TextGateTest, MasksAShortSecretWhole) {
  const TextGate gate({"pw"});
  EXPECT_EQ(gate.Pass("password pw, p w"), "password ***, p w");
}

TEST(TextGateTest, ShowsWordsThatAreKnown) {
  const Bytes words = "EXEC without MULTI";
  EXPECT_EQ(TextGate({"m"}).Pass(words, 200), "EXEC without ***ULTI");
  for (const char* secret : {"m", "multi", "out m", "without multi"})
    EXPECT_EQ(TextGate({secret}).Pass(words, 200, {"without MULTI", "other"}), words) << secret;
  // What goes beyond them is masked, with them.
  EXPECT_EQ(TextGate({"with multiple"}).Pass("wrong: with multiple", 200, {"with"}), "wrong: ***");
  EXPECT_EQ(TextGate({"exec without multi"}).Pass(words, 200, {"without MULTI"}), "***");
}

TEST(TextGateTest, FindsAWholeSecretInAName) {
  const TextGate gate({"topsecret", "short"});
  EXPECT_TRUE(gate.Quotes("1-TOPSECRET-2"));
  EXPECT_FALSE(gate.Quotes("topsecre"));
  EXPECT_FALSE(gate.Quotes("short"));
}

}  // namespace
}  // namespace prm
