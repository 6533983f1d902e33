#include "core/pattern.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <random>
#include <string>
#include <vector>

namespace prm {
namespace {

using std::string_literals::operator""s;

KeyPattern Pattern(std::string_view text) {
  Result<KeyPattern> pattern = KeyPattern::Parse(text);
  if (!pattern.ok()) ADD_FAILURE() << text << ": " << pattern.error().detail;
  return pattern.ok() ? pattern.value() : KeyPattern::Parse("*").value();
}

void ExpectCaptures(std::string_view pattern, Bytes key, const std::vector<std::string>& values) {
  Match match;
  EXPECT_EQ(Pattern(pattern).MatchKey(key, match), Fit::kFits) << pattern << " and " << key;
  EXPECT_EQ(std::vector<std::string>(match.values.begin(), match.values.end()), values)
      << pattern << " and " << key;
}

void ExpectMisfit(std::string_view pattern, Bytes key, const std::string& name, const std::string& text) {
  const KeyPattern parsed = Pattern(pattern);
  Match match;
  ASSERT_EQ(parsed.MatchKey(key, match), Fit::kMisfit) << pattern << " and " << key;
  ASSERT_EQ(match.values.size(), parsed.captures().size());
  EXPECT_EQ(parsed.captures()[match.misfit].name, name) << pattern << " and " << key;
  EXPECT_EQ(match.values[match.misfit], text) << pattern << " and " << key;
}

void ExpectNone(std::string_view pattern, Bytes key) {
  Match match;
  EXPECT_EQ(Pattern(pattern).MatchKey(key, match), Fit::kNone) << pattern << " and " << key;
}

void ExpectRefused(std::string_view pattern, const std::string& detail) {
  const Result<KeyPattern> result = KeyPattern::Parse(pattern);
  ASSERT_FALSE(result.ok()) << pattern;
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(result.error().detail.find(detail), std::string::npos) << result.error().detail;
  EXPECT_FALSE(result.error().hint.empty()) << pattern;
}

TEST(Pattern, ReadsLiteralsCapturesAndStars) {
  const KeyPattern pattern = Pattern("app:{ip:inet}:x*y:{rest_1}");
  EXPECT_EQ(pattern.text(), "app:{ip:inet}:x*y:{rest_1}");
  ASSERT_EQ(pattern.captures().size(), 2u);
  EXPECT_EQ(pattern.captures()[0].name, "ip");
  EXPECT_EQ(pattern.captures()[0].type, CaptureType::kInet);
  EXPECT_EQ(pattern.captures()[1].name, "rest_1");
  EXPECT_EQ(pattern.captures()[1].type, CaptureType::kText);
  EXPECT_TRUE(pattern.has_star());
  EXPECT_FALSE(Pattern("app:{ip:inet}").has_star());
  EXPECT_EQ(Pattern("{id:text}").captures()[0].type, CaptureType::kText);
}

TEST(Pattern, RefusesWhatIsNotAPattern) {
  ExpectRefused("", "empty");
  ExpectRefused("a{b", "no closing brace");
  ExpectRefused("a{", "no closing brace");
  ExpectRefused("a{}", "cannot have the name \"\"");
  ExpectRefused("a{1b}", "cannot have the name \"1b\"");
  ExpectRefused("a{b c}", "cannot have the name \"b c\"");
  ExpectRefused("a{b-c}", "cannot have the name \"b-c\"");
  ExpectRefused("a{\xc3\xa9}", "cannot have the name");
  ExpectRefused("a{:int}", "cannot have the name \"\"");
  ExpectRefused("a{b:}", "unknown type \"\"");
  ExpectRefused("a{b:integer}", "unknown type \"integer\"");
  ExpectRefused("{user:42}:cart", "unknown type \"42\"");
  ExpectRefused("a\\n", "escape at byte 2 is unknown");
  ExpectRefused("a\\", "escape at byte 2 is unknown");
  ExpectRefused("{a}:{a}", "used twice");
  ExpectRefused("{" + std::string(64, 'x') + "}", "cannot have the name");
  EXPECT_TRUE(KeyPattern::Parse("{" + std::string(63, 'x') + "}").ok());
}

TEST(Pattern, RefusesWildcardsSideBySide) {
  ExpectRefused("{a}{b}", "side by side before byte 4");
  ExpectRefused("{a}*", "side by side");
  ExpectRefused("*{a}", "side by side");
  ExpectRefused("a**", "side by side");
}

TEST(Pattern, RefusesColumnNamesOfTheBatch) {
  for (const char* name : {"entry",        "key",          "key_bytes",
                           "db",           "type",         "expires_at",
                           "value",        "value_bytes",  "payload",
                           "json",         "field",        "field_bytes",
                           "member",       "member_bytes", "score",
                           "position",     "ordinal",      "entry_id",
                           "group_name",   "consumer",     "last_delivered_id",
                           "entries_read", "delivered_at", "delivery_count"}) {
    ExpectRefused("a:{"s + name + "}", "\""s + name + "\" is reserved");
    EXPECT_TRUE(KeyPattern::Parse("a:{key_"s + name + "}").ok());  // what the hint proposes
  }
}

TEST(Pattern, RefusesExcess) {
  EXPECT_TRUE(KeyPattern::Parse(std::string(KeyPattern::kMaxTextBytes, 'x')).ok());
  EXPECT_FALSE(KeyPattern::Parse(std::string(KeyPattern::kMaxTextBytes + 1, 'x')).ok());
  std::string stars;
  for (size_t i = 0; i < KeyPattern::kMaxWildcards; ++i) stars += "*:";
  EXPECT_TRUE(KeyPattern::Parse(stars).ok());
  EXPECT_FALSE(KeyPattern::Parse(stars + "*").ok());
}

TEST(Pattern, LiteralsMatchByteForByte) {
  ExpectCaptures("threadr:usage:stats", "threadr:usage:stats", {});
  ExpectNone("threadr:usage:stats", "threadr:usage:stat");
  ExpectNone("threadr:usage:stats", "threadr:usage:stats2");
  ExpectNone("threadr:usage:stats", "Threadr:usage:stats");
  ExpectNone("a", "");
  ExpectCaptures("a?[b]", "a?[b]", {});  // no glob
  ExpectNone("a?[b]", "axb");
  ExpectCaptures("k:{v}", "k:*?[x]{y}\\", {"*?[x]{y}\\"});
}

TEST(Pattern, EscapesAndClusterTags) {
  ExpectCaptures("\\{user:42\\}:cart", "{user:42}:cart", {});
  ExpectCaptures("\\{user:{id:int}\\}:cart", "{user:42}:cart", {"42"});
  ExpectCaptures("\\{user:{id:int}}:cart", "{user:42}:cart", {"42"});  // a bare } is literal
  ExpectCaptures("a\\*b\\\\c", "a*b\\c", {});
  ExpectNone("a\\*b", "axb");
}

TEST(Pattern, CapturesTakeAtLeastOneByteStarsMayBeEmpty) {
  ExpectNone("a:{b}", "a:");
  ExpectNone("a:{b}:c", "a::c");
  ExpectCaptures("a:{b}:c", "a:::c", {":"});
  ExpectCaptures("a:*", "a:", {});
  ExpectCaptures("a:*:c", "a::c", {});
  ExpectNone("a:*:c", "a:c");  // the literals on both sides do not share bytes
  ExpectCaptures("*", "", {});
  ExpectCaptures("*x*", "x", {});
  ExpectNone("{b}", "");
}

TEST(Pattern, KeysAreBytes) {
  ExpectCaptures("a:{b}:c", "a:\0\0:c"s, {"\0\0"s});
  ExpectCaptures("\xff:{b}", "\xff:\xfe", {"\xfe"});
  ExpectNone("a:{b}:c", "a:\0:c\0"s);
  ExpectMisfit("a:{n:int}", "a:1\0"s, "n", "1\0"s);
}

TEST(Pattern, Ipv6AmongColons) {
  ExpectCaptures("threadr:usage:ip:{ip:inet}:daily:{day:date}",
                 "threadr:usage:ip:2001:db8::19:daily:2026-11-13", {"2001:db8::19", "2026-11-13"});
  ExpectCaptures("threadr:usage:ip:{ip:inet}:daily:{day:date}", "threadr:usage:ip:10.0.0.1:daily:2026-11-13",
                 {"10.0.0.1", "2026-11-13"});
  ExpectCaptures("threadr:failed_login:{email:email}:{ip:inet}",
                 "threadr:failed_login:ada.0@example.com:2001:db8::10",
                 {"ada.0@example.com", "2001:db8::10"});
  ExpectCaptures("threadr:failed_login:{email}:{ip:inet}",
                 "threadr:failed_login:ada.0@example.com:2001:db8::10",
                 {"ada.0@example.com", "2001:db8::10"});
  ExpectCaptures("threadr:usage:log:{ip:inet}:{ts:number}", "threadr:usage:log:2001:db8::1:1794782360.054569",
                 {"2001:db8::1", "1794782360.054569"});
  // 1:2:3:4:5:6:7:8 is an address as long as it is given all eight groups.
  ExpectCaptures("log:{ip:inet}:{n:int}", "log:1:2:3:4:5:6:7:8:9", {"1:2:3:4:5:6:7:8", "9"});
  // The longest address that leaves something for the number.
  ExpectCaptures("log:{ip:inet}:{n:int}", "log:2001:db8::1:5", {"2001:db8::1", "5"});
  ExpectCaptures("log:{ip:inet}:{n:int}", "log::::5", {"::", "5"});
}

TEST(Pattern, UrlsAmongColons) {
  ExpectCaptures("threadr:cache:url:{url}", "threadr:cache:url:https://example.com:8080/a:b?c=d",
                 {"https://example.com:8080/a:b?c=d"});
  ExpectCaptures("cache:{url}:v{n:int}", "cache:http://x:v2/y:v3:v12", {"http://x:v2/y:v3", "12"});
  ExpectCaptures("{app}:user:{id:int}", "shop:user:7", {"shop", "7"});
  ExpectCaptures("{app}:user:{id:int}", "a:user:b:user:7", {"a:user:b", "7"});
}

TEST(Pattern, TextTakesLittleTypesTakeMuch) {
  ExpectCaptures("{a}:{b}", "1:2:3", {"1", "2:3"});
  ExpectCaptures("*:{b}", "1:2:3", {"2:3"});
  ExpectCaptures("{a}:*", "1:2:3", {"1"});
  ExpectCaptures("{a:hex}a{b}", "1aaaa", {"1aa", "a"});
  ExpectCaptures("{a}a{b}", "1aaaa", {"1", "aaa"});
  ExpectCaptures("{d:date}0{rest}", "202611130x", {"20261113", "x"});
}

TEST(Pattern, MisfitsNameTheCapture) {
  ExpectMisfit("threadr:premium:ip:{ip:inet}", "threadr:premium:ip:None", "ip", "None");
  ExpectMisfit("u:{ip:inet}:daily:{day:date}", "u:10.0.0.1:daily:2025-02-30", "day", "2025-02-30");
  ExpectMisfit("u:{ip:inet}:daily:{day:date}", "u:unknown:daily:2025-02-28", "ip", "unknown");
  // The search got as far as the second capture, though not with the division that comes first.
  ExpectMisfit("log:{ip:inet}:{ts:number}", "log:2001:db8::1:abc", "ts", "abc");
  ExpectMisfit("l:{email}:{ip:inet}", "l:ada@example.com:10.0.0.999", "ip", "10.0.0.999");
  ExpectMisfit("*:{a}:{n:int}:{b}", "p:q:x:y:z", "n", "x");
}

TEST(Pattern, SkeletonsThatDoNotFitAreNoMisfits) {
  ExpectNone("u:{ip:inet}:daily:{day:date}", "u:10.0.0.1:monthly:2025-02");
  ExpectNone("u:{ip:inet}:daily:{day:date}", "u:10.0.0.1:daily:");
  ExpectNone("u:{ip:inet}:daily:{day:date}", "v:10.0.0.1:daily:2025-02-03");
  ExpectNone("{a}:b:{c}:b:{d}", "x:b:y");
}

TEST(Pattern, ABufferServesManyKeys) {
  const KeyPattern pattern = Pattern("{a:inet}:{n:int}");
  Match match;
  EXPECT_EQ(pattern.MatchKey("1:2:3:4:5:6:7:x", match), Fit::kMisfit);
  EXPECT_EQ(pattern.MatchKey("::1:5", match), Fit::kFits);
  ASSERT_EQ(match.values.size(), 2u);
  EXPECT_EQ(match.values[0], "::1");
  EXPECT_EQ(match.values[1], "5");
}

// Tries all divisions in the order that the pattern's header states.
class Divisions {
 public:
  struct Piece {
    char kind;  // 'l' literal, 's' star, 'c' capture
    std::string literal;
    CaptureType type;
  };

  Divisions(const std::vector<Piece>& pieces, Bytes key) : pieces_(pieces), key_(key) {}

  bool Find(bool with_types) {
    with_types_ = with_types;
    values.clear();
    return From(0, 0);
  }

  std::vector<Bytes> values;

 private:
  bool From(size_t piece, size_t at) {
    if (piece == pieces_.size()) return at == key_.size();
    const Piece& p = pieces_[piece];
    if (p.kind == 'l') {
      return key_.substr(at, p.literal.size()) == p.literal && From(piece + 1, at + p.literal.size());
    }
    std::vector<size_t> lengths;
    for (size_t length = p.kind == 's' ? 0 : 1; at + length <= key_.size(); ++length) {
      if (!with_types_ || p.kind == 's' || FitsType(p.type, key_.substr(at, length)))
        lengths.push_back(length);
    }
    if (with_types_ && p.type != CaptureType::kText) std::reverse(lengths.begin(), lengths.end());
    for (const size_t length : lengths) {
      if (p.kind == 'c') values.push_back(key_.substr(at, length));
      if (From(piece + 1, at + length)) return true;
      if (p.kind == 'c') values.pop_back();
    }
    return false;
  }

  const std::vector<Piece>& pieces_;
  const Bytes key_;
  bool with_types_ = false;
};

TEST(Pattern, AgreesWithTryingEverything) {
  std::minstd_rand random(3);
  constexpr std::string_view kLiterals[] = {":", "::", "1", "a", ":1", "-"};
  constexpr std::string_view kKeyPieces[] = {":",        "::",  "1",     "a",      "12", "-",
                                             "10.0.0.1", "::1", "a@b.c", "202601", "0"};
  constexpr CaptureType kTypes[] = {CaptureType::kText,   CaptureType::kText, CaptureType::kInt,
                                    CaptureType::kNumber, CaptureType::kInet, CaptureType::kHex,
                                    CaptureType::kEmail,  CaptureType::kMonth};
  int results[3] = {0, 0, 0};
  Match match;
  for (int round = 0; round < 60000; ++round) {
    std::vector<Divisions::Piece> pieces;
    std::string text;
    const auto add_literal = [&] {
      const std::string literal(kLiterals[random() % std::size(kLiterals)]);
      pieces.push_back({'l', literal, CaptureType::kText});
      text += literal;
    };
    if (random() % 2 == 0) add_literal();
    const size_t wildcards = 1 + random() % 4;
    for (size_t i = 0; i < wildcards; ++i) {
      if (i > 0) add_literal();
      if (random() % 5 == 0) {
        pieces.push_back({'s', "", CaptureType::kText});
        text += "*";
      } else {
        const CaptureType type = kTypes[random() % std::size(kTypes)];
        pieces.push_back({'c', "", type});
        text += "{c" + std::to_string(i) + ":" + CaptureTypeName(type) + "}";
      }
    }
    if (random() % 2 == 0) add_literal();
    const KeyPattern pattern = Pattern(text);
    for (int keys = 0; keys < 8; ++keys) {
      std::string key;
      for (size_t n = random() % 9; n-- > 0;) key += kKeyPieces[random() % std::size(kKeyPieces)];
      if (random() % 2 == 0) {  // a key that has the skeleton
        key.clear();
        for (const auto& piece : pieces) {
          key +=
              piece.kind == 'l' ? piece.literal : std::string(kKeyPieces[random() % std::size(kKeyPieces)]);
        }
      }
      Divisions divisions(pieces, key);
      const Fit expected = divisions.Find(true)    ? Fit::kFits
                           : divisions.Find(false) ? Fit::kMisfit
                                                   : Fit::kNone;
      ASSERT_EQ(pattern.MatchKey(key, match), expected) << text << " and " << key;
      ++results[static_cast<int>(expected)];
      if (expected == Fit::kFits) {
        ASSERT_EQ(match.values, divisions.values) << text << " and " << key;
      }
      if (expected == Fit::kMisfit) {
        ASSERT_EQ(match.values.size(), pattern.captures().size());
        const Capture& capture = pattern.captures()[match.misfit];
        ASSERT_FALSE(FitsType(capture.type, match.values[match.misfit])) << text << " and " << key;
        for (size_t i = 0; i < match.misfit; ++i) {
          ASSERT_TRUE(FitsType(pattern.captures()[i].type, match.values[i])) << text << " and " << key;
        }
      }
    }
  }
  for (const int count : results) EXPECT_GT(count, 5000);
}

#if defined(__SANITIZE_ADDRESS__)
constexpr double kSlowdown = 20;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr double kSlowdown = 20;
#else
constexpr double kSlowdown = 1;
#endif
#else
constexpr double kSlowdown = 1;
#endif

// CPU time in milliseconds that the pattern needs for the worst of several keys of 64 KB.
double WorstTime(std::string_view text) {
  const KeyPattern pattern = Pattern(text);
  Match match;
  double worst = 0;
  for (const std::string_view unit :
       {":", "::", "1:", "1", "a", "a@b.c:", "1-", "a:", "1:1:1:1::", "a@aa.aa", "1.1-"}) {
    std::string key;
    while (key.size() < 65536) key += unit;
    const std::clock_t start = std::clock();
    pattern.MatchKey(key, match);
    worst = std::max(worst, 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  return worst;
}

TEST(Pattern, HostileKeysTakeLittleTime) {
  for (const std::string_view text : {
           "{a}:{b}:{c}:{d}!",
           "{a}:{b:inet}:{c:inet}:{d:int}",
           "{a}:{b:inet}:{c}:{d:uuid}",
           "*:{a}:*:{b}:{c:int}:{d:int}",
           "{a:email}:{b:inet}:{c:number}:{d:date}",
           "{a}a{b:email}a{c:email}a{d:uuid}",
           "{a}-{b:int}-{c:number}-{d:date}",
           "{a}::{b:inet}::{c:inet}::{d:date}",
       }) {
    EXPECT_LT(WorstTime(text), 50 * kSlowdown) << text;
  }
}

// The time stays linear even if a literal could be part of the value before it, which then has hundreds of
// possible ends.
TEST(Pattern, HostileKeysTakeBoundedTimeInDoubtfulPatterns) {
  for (const std::string_view text : {"{a}1{b:number}1{c:number}1{d:uuid}", "{a}a{b:hex}a{c:hex}a{d:uuid}"}) {
    EXPECT_LT(WorstTime(text), 500 * kSlowdown) << text;
  }
}

TEST(PatternOverlap, KnownPairs) {
  const auto overlap = [](std::string_view a, std::string_view b) {
    const bool result = Pattern(a).Overlaps(Pattern(b));
    EXPECT_EQ(Pattern(b).Overlaps(Pattern(a)), result) << a << " and " << b;
    return result;
  };
  EXPECT_TRUE(overlap("a", "a"));
  EXPECT_FALSE(overlap("a", "b"));
  EXPECT_TRUE(overlap("threadr:user:{id}", "threadr:user:email:{email}"));
  EXPECT_TRUE(overlap("threadr:user:{id:uuid}", "threadr:user:email:{email}"));  // types do not count
  EXPECT_FALSE(overlap("threadr:user:{id}", "threadr:users:{id}"));
  EXPECT_TRUE(overlap("{a}:x", "y:{b}"));
  EXPECT_FALSE(overlap("a:{b}", "a:"));
  EXPECT_TRUE(overlap("a:*", "a:"));
  EXPECT_FALSE(overlap("{a}\xff", "b\xfe"));
  EXPECT_TRUE(overlap("\xff{a}", "*\xff"));
  EXPECT_TRUE(overlap("*", "{x}"));
}

TEST(PatternOverlap, AgreesWithTryingAllShortKeys) {
  std::vector<std::string> keys = {""};
  for (size_t i = 0; keys[i].size() < 7; ++i) {
    for (const char c : {'a', ':'}) keys.push_back(keys[i] + c);
  }
  const std::string_view texts[] = {"a",      ":",     "*",     "{x}",      "a*",      "*a",    "{x}a",
                                    "a{x}",   "a{x}:", ":*:",   "*:*",      "{x}:*",   "*:{x}", "{x}:{y}",
                                    "a*:{y}", "*a*:*", "aa*",   "*::",      "::{x}",   "a:a*",  "{x}aa",
                                    ":{x}a:", "*aa*",  "*:a:*", "{x}:a{y}", "a{x}a{y}"};
  Match match;
  for (const std::string_view a : texts) {
    for (const std::string_view b : texts) {
      const KeyPattern first = Pattern(a);
      const KeyPattern second = Pattern(b);
      const bool expected = std::any_of(keys.begin(), keys.end(), [&](const std::string& key) {
        return first.MatchKey(key, match) != Fit::kNone && second.MatchKey(key, match) != Fit::kNone;
      });
      EXPECT_EQ(first.Overlaps(second), expected) << a << " and " << b;
    }
  }
}

TEST(PatternOrder, MostSpecificFirst) {
  // Each is more specific than all that follow.
  const std::string_view texts[] = {
      "abcdef", "ab:{n:int}:{d:date}", "ab:{n:int}:{d}", "ab:{m}:{d}", "ab:{n}:{d}", "ab:{n}:*",
      "ab:*:*", "ab:{n:int}",          "ab:{n}",         "*"};
  for (size_t i = 0; i < std::size(texts); ++i) {
    for (size_t j = 0; j < std::size(texts); ++j) {
      EXPECT_EQ(KeyPattern::MoreSpecific(Pattern(texts[i]), Pattern(texts[j])), i < j)
          << texts[i] << " and " << texts[j];
    }
  }
}

TEST(KeyPattern, CoversPatternsOfTheSameShape) {
  const auto covers = [](std::string_view a, std::string_view b) { return Pattern(a).Covers(Pattern(b)); };
  EXPECT_TRUE(covers("p{a}", "p{b}"));
  EXPECT_TRUE(covers("p{a}", "p{b:int}"));
  EXPECT_FALSE(covers("p{a:int}", "p{b}"));
  EXPECT_TRUE(covers("p{a:number}", "p{b:int}"));
  EXPECT_FALSE(covers("p{a:int}", "p{b:number}"));
  EXPECT_FALSE(covers("p{a:hex}", "p{b:int}"));  // -1
  EXPECT_TRUE(covers("p*:x", "p{b}:x"));
  EXPECT_FALSE(covers("p{a}:x", "p*:x"));
  EXPECT_FALSE(covers("p{a}:x", "p{a}:y"));
  EXPECT_FALSE(covers("p{a}:x", "q{a}:x"));
  EXPECT_FALSE(covers("p{a}:{b}", "p{a}:"));
  EXPECT_TRUE(covers("p", "p"));
}

PatternSet Set(std::initializer_list<std::string_view> texts) {
  std::vector<KeyPattern> patterns;
  for (const std::string_view text : texts) patterns.push_back(Pattern(text));
  return PatternSet(std::move(patterns));
}

TEST(PatternSet, TheMostSpecificPatternOwnsAKey) {
  const PatternSet set = Set({"user:{id}", "user:email:{email}", "user:{n:int}", "*"});
  Match match;
  const auto owner = [&](Bytes key) {
    const PatternSet::Owner result = set.FindOwner(key, match);
    EXPECT_EQ(result.fit, Fit::kFits) << key;
    return set.patterns()[result.pattern].text();
  };
  EXPECT_EQ(owner("user:email:a@b.c"), "user:email:{email}");
  EXPECT_EQ(match.values[0], "a@b.c");
  EXPECT_EQ(owner("user:42"), "user:{n:int}");
  EXPECT_EQ(owner("user:x"), "user:{id}");
  EXPECT_EQ(match.values[0], "x");
  EXPECT_EQ(owner("other"), "*");
}

TEST(PatternSet, AFittingPatternGoesBeforeAMisfit) {
  const PatternSet set = Set({"user:{id}", "user:{n:int}"});
  Match match;
  const PatternSet::Owner owner = set.FindOwner("user:None", match);
  EXPECT_EQ(owner.fit, Fit::kFits);
  EXPECT_EQ(owner.pattern, 0u);
}

TEST(PatternSet, OnlyPatternsThatTakeTheKeyAreAsked) {
  const PatternSet set = Set({"p{id}", "p{name}", "p{n:int}"});
  Match match;
  const auto owner = [&](Bytes key, std::initializer_list<size_t> among) {
    return set.FindOwner(key, match, [&](size_t index) {
      return std::find(among.begin(), among.end(), index) != among.end();
    });
  };
  EXPECT_EQ(owner("px", {0, 1}).pattern, 0u);
  EXPECT_EQ(owner("px", {1, 2}).pattern, 1u);
  EXPECT_EQ(owner("px", {2}).fit, Fit::kMisfit);
  EXPECT_EQ(match.misfit, 0u);
  EXPECT_EQ(owner("px", {}).fit, Fit::kNone);
}

TEST(PatternSet, TheMostSpecificMisfitIsReported) {
  const PatternSet set = Set({"a:{ip:inet}", "{x}:{n:int}", "a:{n:int}:{m:int}"});
  Match match;
  const PatternSet::Owner owner = set.FindOwner("a:b:c", match);
  EXPECT_EQ(owner.fit, Fit::kMisfit);
  EXPECT_EQ(owner.pattern, 2u);
  ASSERT_EQ(match.values.size(), 2u);
  EXPECT_EQ(match.misfit, 0u);
  EXPECT_EQ(match.values[0], "b");
  EXPECT_EQ(set.FindOwner("b", match).fit, Fit::kNone);
  EXPECT_EQ(Set({}).FindOwner("b", match).fit, Fit::kNone);
}

TEST(Pattern, ComposesTheKeyThatItMatches) {
  EXPECT_EQ(Pattern("a").Compose({}), "a");
  EXPECT_EQ(Pattern("user:{id:int}").Compose({"-5"}), "user:-5");
  EXPECT_EQ(Pattern("{a}:\\*{b}\\}").Compose({"x\0y"s, ""}), "x\0y:*}"s);
  for (const char* key : {"cart:7:apple", "cart:7:a:b", "cart:7:*"}) {
    Match match;
    const KeyPattern pattern = Pattern("cart:{id:int}:{sku}");
    ASSERT_EQ(pattern.MatchKey(key, match), Fit::kFits);
    EXPECT_EQ(pattern.Compose({match.values.begin(), match.values.end()}), key);
  }
}

// Characters that are special to Redis' own matcher have a backslash before them.
TEST(Pattern, GlobsHaveSpecialCharactersEscaped) {
  EXPECT_EQ(Pattern("user:{id:int}").Glob(), "user:*");
  EXPECT_EQ(Pattern("{a}:{b}:c").Glob(), "*:*:c");
  EXPECT_EQ(Pattern("a?[b]^\\\\:{id}").Glob(), "a\\?\\[b\\]\\^\\\\:*");
  EXPECT_EQ(Pattern("a\\*:*").Glob(), "a\\*:*");
}

}  // namespace
}  // namespace prm
