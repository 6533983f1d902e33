#include "discover/value_kind.h"

#include <gtest/gtest.h>

#include <string>

namespace prm {
namespace {

template <size_t N>
Bytes Raw(const char (&text)[N]) {
  return {text, N - 1};
}

std::string KindOf(Bytes value) { return ValueKindName(DetectValueKind(value, true)); }

TEST(ValueKind, NumbersAndJson) {
  EXPECT_EQ(KindOf(""), "empty");
  EXPECT_EQ(KindOf("0"), "integer");
  EXPECT_EQ(KindOf("-17"), "integer");
  EXPECT_EQ(KindOf("9223372036854775807"), "integer");
  EXPECT_EQ(KindOf("9223372036854775808"), "json scalar");  // beyond bigint
  EXPECT_EQ(KindOf("1.5"), "json scalar");
  EXPECT_EQ(KindOf("true"), "json scalar");
  EXPECT_EQ(KindOf("\"text\""), "json scalar");
  EXPECT_EQ(KindOf("007"), "text");
  EXPECT_EQ(KindOf(R"({"a": [1, {"b": null}], "c": "}"})"), "json object");
  EXPECT_EQ(KindOf("{}"), "json object");
  EXPECT_EQ(KindOf(" [1, 2.5e3, \"\\u00e9\"] "), "json array");
  EXPECT_EQ(KindOf("[]"), "json array");
  for (const char* broken :
       {"{", "[1,", "{\"a\"}", "{\"a\":1,}", "[1]x", "{'a':1}", "nul", "\"a", "{\"a\":}", "[}"}) {
    EXPECT_EQ(KindOf(broken), "text") << broken;
  }
}

TEST(ValueKind, JsonThatWasCut) {
  const std::string json = R"({"name": "Ada", "tags": ["a\\b", true, null, -1.5e3], "more": {"x": {}}})";
  for (size_t length = 1; length < json.size(); ++length) {
    EXPECT_EQ(DetectValueKind(Bytes(json).substr(0, length), false), ValueKind::kJsonObject) << length;
    EXPECT_NE(DetectValueKind(Bytes(json).substr(0, length), true), ValueKind::kJsonObject) << length;
  }
}

// The output of pickle.dumps, serialize() and their like in other languages.
TEST(ValueKind, Languages) {
  EXPECT_EQ(KindOf(Raw("\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01"
                       "a\x94K\x01s.")),
            "python pickle");
  EXPECT_EQ(KindOf(Raw("\x80\x02}q\x00X\x01\x00\x00\x00"
                       "aq\x01K\x01s.")),
            "python pickle");
  EXPECT_EQ(KindOf("(dp0\nS'a'\np1\nI1\ns."), "python pickle");
  EXPECT_EQ(KindOf("a:1:{s:1:\"k\";i:5;}"), "php");
  EXPECT_EQ(KindOf("s:3:\"abc\";"), "php");
  EXPECT_EQ(KindOf("O:8:\"stdClass\":0:{}"), "php");
  EXPECT_EQ(KindOf("i:5;"), "php");
  EXPECT_EQ(KindOf("user|s:3:\"ada\";n|i:1;"), "php");
  EXPECT_EQ(KindOf(Raw("a:1:{s:4:\"\0*\0k\";i:5;}")), "php");
  EXPECT_EQ(KindOf(Raw("\xac\xed\x00\x05t\x00\x03"
                       "abc")),
            "java");
  EXPECT_EQ(KindOf(Raw("\x04\x08{\x06:\x06"
                       "ai\x06")),
            "ruby marshal");
  EXPECT_EQ(KindOf(Raw("\x00\x11\x01\x00\x00\x00\x00\x00\x00\xf0\xbf\xff\xff\xff\xff\x04\x08i\x06")),
            "rails");
  EXPECT_EQ(KindOf(Raw("\x82\xa1"
                       "a\x01\xa1"
                       "b\x93\x01\x02\xc0")),
            "msgpack");
  EXPECT_EQ(KindOf(Raw("\xde\x00\x01\xa1k\xcd\x01\x00")), "msgpack");
  EXPECT_EQ(DetectValueKind(Raw("\xdc\x00\x20\xa5hello\xa5hel"), false), ValueKind::kMsgpack);
  EXPECT_EQ(KindOf(Raw("\xdc\x00\x20\xa5hello\xa5hel")), "binary");  // the same as a whole is none
}

TEST(ValueKind, CompressedAndPlain) {
  EXPECT_EQ(KindOf(Raw("\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff")), "gzip");
  EXPECT_EQ(KindOf(Raw("\x78\x9cK\xcb\xcf\x07\x00\x02\x82\x01"
                       "E")),
            "zlib");
  EXPECT_EQ(KindOf(Raw("\x28\xb5\x2f\xfd\x04\x58\x19\x00\x00")), "zstd");
  EXPECT_EQ(KindOf("x\x9dyz"), "binary");  // 0x789d is no zlib header: not a multiple of 31
  EXPECT_EQ(KindOf("hello"), "text");
  EXPECT_EQ(KindOf("j\xc3\xb6rg\t\n"), "text");
  EXPECT_EQ(KindOf("\xe9"), "binary");
  EXPECT_EQ(KindOf(Raw("a\0b")), "binary");
  EXPECT_EQ(KindOf("\xed\xa0\x80"), "binary");  // a surrogate
  EXPECT_EQ(DetectValueKind(" ", false), ValueKind::kText);
  EXPECT_EQ(DetectValueKind("caf\xc3", false), ValueKind::kText);
  EXPECT_EQ(DetectValueKind("caf\xc3", true), ValueKind::kBinary);
}

}  // namespace
}  // namespace prm
