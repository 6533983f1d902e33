#include "discover/family.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "discover/framework_layout.h"

namespace prm {
namespace {

struct Known {
  std::string key;
  std::string type = "string";
  ValueKind kind = ValueKind::kText;
};

std::vector<Family> Discover(const std::vector<Known>& keys, bool* capped = nullptr) {
  FamilyTree tree;
  for (const Known& known : keys) {
    KeyFacts facts;
    facts.type = known.type;
    facts.kind = known.kind;
    tree.Add(known.key, &facts);
  }
  tree.Finish();
  if (capped != nullptr) *capped = tree.capped();
  return FindFamilies(tree);
}

// Keys by pattern. Every example fits its pattern, or there are odd keys.
std::map<std::string, uint64_t> Patterns(const std::vector<Known>& keys) {
  std::map<std::string, uint64_t> patterns;
  for (const Family& family : Discover(keys)) {
    patterns[family.pattern.text()] = family.stats.keys;
    Match match;
    for (const std::string& example : family.stats.examples) {
      EXPECT_EQ(family.pattern.MatchKey(example, match), Fit::kFits)
          << family.pattern.text() << " " << example;
    }
  }
  return patterns;
}

using Expected = std::map<std::string, uint64_t>;

// The pattern of one key.
std::string PatternOf(const std::string& key) {
  const auto patterns = Patterns({{key}});
  return patterns.size() == 1 ? patterns.begin()->first : "?";
}

TEST(Family, ValuesInKeysBecomeCaptures) {
  EXPECT_EQ(PatternOf("user:17"), "user:{user_id:int}");
  EXPECT_EQ(PatternOf("user:d58acb85-8764-4def-ac0a-ed330213387d"), "user:{user_id:uuid}");
  EXPECT_EQ(PatternOf("user:cacedfbe-158f-4979-9203-c504a18a7c8a"), "user:{user_id:uuid}");
  EXPECT_EQ(PatternOf("user-cacedfbe-158f-4979-9203-c504a18a7c8a"), "user-{user_id:uuid}");
  EXPECT_EQ(PatternOf("u:email:ada.0@example.com"), "u:email:{email:email}");
  EXPECT_EQ(PatternOf("rate:192.0.2.13"), "rate:{ip:inet}");
  EXPECT_EQ(PatternOf("rate:2001:db8::1"), "rate:{ip:inet}");
  EXPECT_EQ(PatternOf("usage:ip:2001:db8::19:daily:2026-11-13"), "usage:ip:{ip:inet}:daily:{day:date}");
  EXPECT_EQ(PatternOf("usage:ip:::1:monthly:2026-11"), "usage:ip:{ip:inet}:monthly:{month:month}");
  EXPECT_EQ(PatternOf("log:2001:db8::19:1794782360.054569"), "log:{ip:inet}:{number:number}");
  EXPECT_EQ(PatternOf("failed:ada@example.com:2001:db8::10"), "failed:{email:email}:{ip:inet}");
  EXPECT_EQ(PatternOf("cache:text:10b3f1af24c2f3fb"), "cache:text:{hash:hex}");
  EXPECT_EQ(PatternOf("cache:text:0000000000000000"), "cache:text:{hash:hex}");
  EXPECT_EQ(PatternOf("cache:url:https://blog.example.com/a/1?x=1:2"), "cache:url:{url}");
  EXPECT_EQ(PatternOf("stat:20261121"), "stat:{day:date}");
  EXPECT_EQ(PatternOf("celery-task-meta-d58acb85-8764-4def-ac0a-ed330213387d"),
            "celery-task-meta-{celery_task_meta_id:uuid}");
  EXPECT_EQ(PatternOf("sess:dGhpc0lzQTEyVG9rZW5XMzRYeXo"), "sess:{token}");
  EXPECT_EQ(PatternOf("app.user.5.name"), "app.user.{user_id:int}.name");
  EXPECT_EQ(PatternOf("a/b/5"), "a/b/{b_id:int}");
}

TEST(Family, WordsStay) {
  EXPECT_EQ(PatternOf("threadr:emails:list"), "threadr:emails:list");
  EXPECT_EQ(PatternOf("oauth2:v1:x"), "oauth2:v1:x");
  EXPECT_EQ(PatternOf("feedface"), "feedface");
  EXPECT_EQ(PatternOf("a::b"), "a::b");  // an address by its form only
  EXPECT_EQ(PatternOf("userProfileUpdatedAt:HTTPServerNode12"), "userProfileUpdatedAt:HTTPServerNode12");
  EXPECT_EQ(PatternOf("x:"), "x:");
}

TEST(Family, SpecialCharactersAreEscaped) {
  EXPECT_EQ(PatternOf("a*b"), "a\\*b");
  EXPECT_EQ(PatternOf("a\\b{c}"), "a\\\\b\\{c\\}");
  EXPECT_EQ(PatternOf("{17}.following"), "\\{{id:int}\\}.following");
  EXPECT_EQ(PatternOf(""), "*");
  // A byte that no pattern can name becomes part of a capture.
  EXPECT_EQ(PatternOf("celery\x06\x16"
                      "3"),
            "celery{rest}");
  EXPECT_EQ(PatternOf(std::string("a:\0b", 4)), "a:{rest}");
  EXPECT_EQ(PatternOf("a:\xe9x:5"), "a:{rest}:{id:int}");
  EXPECT_EQ(PatternOf("a:" + std::string(100000, 'x')), "a:{a_name}");
}

TEST(Family, DifferentFamiliesStayApart) {
  std::vector<Known> keys;
  for (int i = 0; i < 30; ++i) {
    const std::string n = std::to_string(i);
    keys.push_back({"user:email:ada" + n + "@example.com"});
    keys.push_back({"user:d58acb85-8764-4def-ac0a-ed33021338" + std::to_string(10 + i)});
    keys.push_back({"premium:ip:192.0.2." + n});
    keys.push_back({"premium:email:ada" + n + "@example.com"});
    keys.push_back({"user:count:" + n});
    for (const char* entity :
         {"cart", "order", "item", "sku", "promo", "stock", "price", "review", "brand", "tag", "vendor"})
      keys.push_back({"shop:" + std::string(entity) + ":" + n});
  }
  Expected expected = {{"user:email:{email:email}", 30},
                       {"user:{user_id:uuid}", 30},
                       {"premium:ip:{ip:inet}", 30},
                       {"premium:email:{email:email}", 30},
                       {"user:count:{count_id:int}", 30}};
  for (const char* entity :
       {"cart", "order", "item", "sku", "promo", "stock", "price", "review", "brand", "tag", "vendor"})
    expected["shop:" + std::string(entity) + ":{" + entity + "_id:int}"] = 30;
  EXPECT_EQ(Patterns(keys), expected);
}

// Letters only, so that nothing but their number tells that they are names.
std::string Name(size_t i) {
  std::string name = "q";
  for (; i > 0; i /= 20) name += static_cast<char>('a' + i % 20);
  return name;
}

TEST(Family, ManyWordsAreNames) {
  std::vector<Known> keys;
  for (size_t i = 0; i < 5000; ++i) {
    keys.push_back({"user:" + Name(i)});
    keys.push_back({"profile:" + Name(i) + ":avatar"});
    if (i % 3 == 0) keys.push_back({"profile:" + Name(i) + ":settings"});
    keys.push_back({"follow:" + Name(i) + ":" + Name(i * 7 % 5000)});
    keys.push_back({"host" + std::to_string(i) + ":cpu"});
  }
  for (size_t i = 0; i < 40; ++i) keys.push_back({"user:email:" + Name(i) + "@example.com"});
  keys.push_back({"user:index", "set"});
  std::shuffle(keys.begin(), keys.end(), std::mt19937(7));
  EXPECT_EQ(Patterns(keys), (Expected{{"user:{user_name}", 5000},
                                      {"profile:{profile_name}:avatar", 5000},
                                      {"profile:{profile_name}:settings", 1667},
                                      {"follow:{follow_name}:{name}", 5000},
                                      {"host{host_id:int}:cpu", 5000},
                                      {"user:email:{email:email}", 40},
                                      {"user:index", 1}}));
}

TEST(Family, WhatNoPatternCouldTellApartIsOne) {
  std::vector<Known> keys;
  for (int i = 0; i < 20; ++i) {
    keys.push_back({"h:" + std::to_string(10000000 + i)});
    keys.push_back({"h:10b3f1af24c2f3" + std::to_string(10 + i)});
    keys.push_back({"n:" + std::to_string(i)});
    keys.push_back({"n:" + std::to_string(i) + ".5"});
    keys.push_back({"v:1:d58acb85-8764-4def-ac0a-ed33021338" + std::to_string(10 + i)});
  }
  EXPECT_EQ(Patterns(keys),
            (Expected{{"h:{hash:hex}", 40}, {"n:{number:number}", 40}, {"v:1:{id:uuid}", 20}}));
}

// An IPv6 address swallows what follows it, unless other keys tell that something follows.
TEST(Family, AKeyBelongsToTheMostSpecificPattern) {
  std::vector<Known> keys;
  for (int i = 10; i < 40; ++i) {
    keys.push_back({"rate:192.0.2." + std::to_string(i) + ":60"});
    keys.push_back({"rate:2001:db8::" + std::to_string(i) + ":60"});
    keys.push_back({"seen:192.0.2." + std::to_string(i)});
    keys.push_back({"seen:2001:db8::" + std::to_string(i)});
  }
  EXPECT_EQ(Patterns(keys), (Expected{{"rate:{ip:inet}:60", 60}, {"seen:{ip:inet}", 60}}));
  for (int i = 10; i < 40; ++i) keys.push_back({"rate:192.0.2." + std::to_string(i) + ":3600"});
  EXPECT_EQ(Patterns(keys), (Expected{{"rate:{ip:inet}:{id:int}", 90}, {"seen:{ip:inet}", 60}}));
}

TEST(Family, FewKeysThatMissATypeAreOdd) {
  std::vector<Known> keys;
  for (int i = 0; i < 20; ++i)
    keys.push_back({"premium:ip:192.0.2." + std::to_string(i), "string", ValueKind::kJsonObject});
  for (int i = 1; i < 21; ++i)
    keys.push_back({"d:2026-11-" + std::to_string(i + 9), "string", ValueKind::kInteger});
  keys.push_back({"premium:ip:None", "string", ValueKind::kJsonObject});
  keys.push_back({"premium:ip:999.1.2.3", "string", ValueKind::kJsonObject});
  keys.push_back({"premium:ip:all", "set"});                            // of another type: a family
  keys.push_back({"premium:ip:count", "string", ValueKind::kInteger});  // another kind of value, too
  keys.push_back({"d:2025-02-30", "string", ValueKind::kInteger});
  const std::vector<Family> families = Discover(keys);
  std::map<std::string, std::map<std::string, uint64_t>> odd;
  for (const Family& family : families) odd[family.pattern.text()] = family.odd;
  EXPECT_EQ(odd, (std::map<std::string, std::map<std::string, uint64_t>>{
                     {"premium:ip:{ip:inet}", {{"ip is not inet", 2}}},
                     {"d:{day:date}", {{"day is not date", 1}}},
                     {"premium:ip:all", {}},
                     {"premium:ip:count", {}}}));
  EXPECT_EQ(families[0].stats.keys, 22U);
}

// As many families as keys: names are taken together, and memory stays within its limits.
TEST(Family, RandomNamesStayBounded) {
  std::mt19937 random(1);
  for (const bool raw : {false, true}) {
    FamilyTree tree;
    size_t most = 0;
    constexpr uint64_t kKeys = 50000;
    for (uint64_t i = 0; i < kKeys; ++i) {
      std::string key;
      const size_t length = 4 + random() % 12;
      for (size_t k = 0; k < length; ++k)
        key += raw      ? static_cast<char>(random() % 256)
               : k == 4 ? ':'
                        : static_cast<char>('a' + random() % 26);
      tree.Add(key, nullptr);
      most = std::max(most, tree.nodes());
    }
    tree.Finish();
    EXPECT_LE(most, 2 * FamilyTree::kMaxNodes);
    EXPECT_EQ(tree.capped(), raw);
    uint64_t keys = 0;
    for (const Family& family : FindFamilies(tree)) keys += family.stats.keys;
    EXPECT_EQ(keys, kKeys);
  }
}

TEST(Family, FindTellsWhereAKeyWouldBeCounted) {
  FamilyTree tree;
  EXPECT_EQ(tree.Find("user:1"), nullptr);
  tree.Add("user:1", nullptr);
  ASSERT_NE(tree.Find("user:2"), nullptr);
  EXPECT_EQ(tree.Find("user:2")->keys(), 1U);
  EXPECT_EQ(tree.Find("user:x"), nullptr);
  EXPECT_EQ(tree.Find(""), nullptr);
  EXPECT_EQ(tree.Find("user:"), nullptr);
}

TEST(Family, ACopyGoesItsOwnWay) {
  FamilyTree tree;
  KeyFacts facts;
  facts.bytes = 10;
  for (int i = 0; i < 100; ++i) tree.Add("user:" + std::to_string(i) + ":name", &facts);
  FamilyTree copy(tree);
  EXPECT_EQ(copy.nodes(), tree.nodes());
  for (int i = 100; i < 300; ++i) copy.Add("user:" + std::to_string(i) + ":name", &facts);
  copy.Add("other", nullptr);
  copy.Finish();
  tree.Finish();
  const auto families = FindFamilies(tree);
  ASSERT_EQ(families.size(), 1U);
  EXPECT_EQ(families[0].stats.keys, 100U);
  EXPECT_EQ(families[0].stats.bytes, 1000U);
  const auto more = FindFamilies(copy);
  ASSERT_EQ(more.size(), 2U);
  EXPECT_EQ(more[0].pattern.text(), families[0].pattern.text());
  EXPECT_EQ(more[0].stats.keys, 300U);
  EXPECT_EQ(more[0].stats.bytes, 3000U);
}

TEST(Family, StatisticsAddUp) {
  FamilyTree tree;
  for (int i = 1; i <= 12; ++i) {
    KeyFacts facts;
    facts.type = i == 12 ? "hash" : "string";
    facts.bytes = 100;
    facts.ttl_ms = i % 2 == 0 ? KeyFacts::kNoExpiry : i * 1000000;
    facts.idle_s = i;
    tree.Add("k:" + std::to_string(i), i == 1 ? nullptr : &facts);
  }
  tree.Finish();
  const std::vector<Family> families = FindFamilies(tree);
  ASSERT_EQ(families.size(), 2U);  // a mapping takes one type
  const FamilyStats& stats = families[0].stats;
  EXPECT_EQ(stats.keys, 11U);
  EXPECT_EQ(stats.asked, 10U);
  EXPECT_EQ(stats.bytes, 1000U);
  EXPECT_EQ(stats.with_expiry, 5U);
  EXPECT_EQ(stats.without_expiry, 5U);
  EXPECT_EQ(stats.ttl_ms.least, 3000000);
  EXPECT_EQ(stats.ttl_ms.greatest, 11000000);
  EXPECT_EQ(stats.ttl_buckets[0], 1U);
  EXPECT_EQ(stats.ttl_buckets[1], 4U);
  EXPECT_EQ(stats.idle_s.least, 2);
  EXPECT_EQ(stats.Type(), "string");
  EXPECT_EQ(families[1].stats.Type(), "hash");
  EXPECT_EQ(families[1].pattern.text(), families[0].pattern.text());
}

constexpr char kLower[] = "abcdefghijklmnopqrstuvwxyz";
constexpr char kDigit[] = "0123456789";

std::string Draw(std::mt19937& random, const std::string& alphabet, size_t length) {
  std::string id;
  for (size_t i = 0; i < length; ++i) id += alphabet[random() % alphabet.size()];
  return id;
}

struct IdKind {
  const char* name;
  std::string alphabet;
  size_t length;
  const char* start;  // before the id
};

std::vector<IdKind> IdKinds() {
  const std::string lower = kLower, digit = kDigit;
  std::string upper = lower;
  for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
  const std::string alphanumeric = lower + upper + digit;
  return {{"express-session", alphanumeric + "-_", 32, "sess:"},
          {"nanoid", alphanumeric + "-_", 21, "item:"},
          {"256 bits in base64url", alphanumeric + "-_", 43, "scs:session:"},
          {"Laravel", alphanumeric, 40, "laravel_database_"},
          {"Django", lower + digit, 32, ":1:django.contrib.sessions.cache"},
          {"gorilla", upper + "234567", 52, "session_"},
          {"ULID", "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 26, "order:"},
          {"MD5", "0123456789abcdef", 32, "page:"},
          {"ObjectId", "0123456789abcdef", 24, "doc:"},
          {"short hash", "0123456789abcdef", 8, "git:"},
          {"base36", lower + digit, 12, "cart:"},
          {"nanoid behind a word", alphanumeric + "-_", 21, "user_"},
          {"YouTube", alphanumeric + "-_", 11, "video:"},
          {"letters", lower, 24, "t:"},
          {"PIN", digit, 6, "otp:"}};
}

// Many ids of a kind are one family, whatever they look like, and no pattern shows one of them.
TEST(Family, RandomIdsOfAKindAreOneFamily) {
  for (const IdKind& kind : IdKinds()) {
    for (unsigned seed = 0; seed < 8; ++seed) {
      std::mt19937 random(seed);
      std::vector<Known> keys;
      std::vector<std::string> ids;
      for (size_t i = 0; i < 1000; ++i) {
        ids.push_back(Draw(random, kind.alphabet, kind.length));
        keys.push_back({kind.start + ids.back()});
      }
      const std::vector<Family> families = Discover(keys);
      ASSERT_EQ(families.size(), 1U) << kind.name << ", seed " << seed << ": "
                                     << families.back().pattern.text();
      EXPECT_EQ(families[0].pattern.captures().size(), 1U) << kind.name;
      for (const std::string& id : ids) ASSERT_EQ(families[0].pattern.text().find(id), std::string::npos);
    }
  }
}

// Django's sessions stand among other keys of its cache, with nothing between their prefix and the id.
TEST(Family, SessionsStayApartFromTheCacheAroundThem) {
  std::mt19937 random(2);
  std::vector<Known> keys;
  for (size_t i = 0; i < 500; ++i) {
    keys.push_back({":1:django.contrib.sessions.cache" + Draw(random, std::string(kLower) + kDigit, 32),
                    "string", ValueKind::kPickle});
    keys.push_back({":1:" + Name(i), "string", ValueKind::kPickle});
  }
  std::shuffle(keys.begin(), keys.end(), random);
  std::map<std::string, std::string> frameworks;
  for (const Family& family : Discover(keys)) {
    const FrameworkLayout* layout = FindFrameworkLayout(family.stats);
    frameworks[family.pattern.text()] = layout == nullptr ? "" : layout->framework;
  }
  EXPECT_EQ(frameworks, (std::map<std::string, std::string>{
                            {":1:django.contrib.sessions.cache{token}", "Django sessions in the cache"},
                            {":1:{name}", "Django cache"}}));
}

// Ids of these kinds differ only in their first letters.
TEST(Family, WordsBeforeRandomIdsAreFamilies) {
  for (const IdKind& kind : IdKinds()) {
    if (kind.length < 20 || kind.alphabet.size() < 32) continue;
    for (unsigned seed = 0; seed < 4; ++seed) {
      std::mt19937 random(seed);
      std::vector<Known> keys;
      for (size_t i = 0; i < 500; ++i) {
        keys.push_back({"app:sess" + Draw(random, kind.alphabet, kind.length)});
        if (i % 5 == 0) keys.push_back({"app:Cart" + Draw(random, kind.alphabet, kind.length)});
        keys.push_back({"app:cus_" + Draw(random, kind.alphabet, kind.length)});
        keys.push_back({"app:" + Draw(random, kind.alphabet, kind.length)});
        keys.push_back({"x:token" + Draw(random, kind.alphabet, kind.length) + ":user"});
        keys.push_back({"x:reset" + Draw(random, kind.alphabet, kind.length) + ":user"});
      }
      std::shuffle(keys.begin(), keys.end(), random);
      EXPECT_EQ(Patterns(keys), (Expected{{"app:sess{token}", 500},
                                          {"app:Cart{token}", 100},
                                          {"app:cus_{token}", 500},
                                          {"app:{token}", 500},
                                          {"x:token{token}:user", 500},
                                          {"x:reset{token}:user", 500}}))
          << kind.name << ", seed " << seed;
    }
  }
}

// Words that begin alike, one of them even with the other one, and not equally often. An id that happens to
// begin with the rest of a longer word counts as one of that word's.
TEST(Family, WordsThatBeginAlikeAreFamiliesOfTheirOwn) {
  std::vector<IdKind> kinds = IdKinds();
  kinds.push_back({"40 hexadecimal digits", "0123456789abcdef", 40, ""});
  const std::vector<std::pair<std::string, size_t>> words = {
      {"transactions", 4}, {"transaction", 8}, {"session", 4}, {"sesame", 4},
      {"sess", 10},        {"users", 2},       {"user", 1}};
  for (const IdKind& kind : kinds) {
    // Words of one length with an id of letters are told apart by that, so that s belongs to the id.
    if (kind.length < 20 || kind.alphabet == kLower) continue;
    for (unsigned seed = 0; seed < 4; ++seed) {
      std::mt19937 random(seed);
      std::vector<Known> keys;
      Expected expected;
      for (size_t i = 0; i < 2000; ++i) {
        for (const auto& [word, every] : words) {
          if (i % every != 0) continue;
          const std::string name = word + Draw(random, kind.alphabet, kind.length);
          keys.push_back({"app:" + name});
          const auto longest = std::find_if(words.begin(), words.end(), [&](const auto& other) {
            return name.compare(0, other.first.size(), other.first) == 0;
          });
          ++expected["app:" + longest->first + "{token}"];
        }
      }
      std::shuffle(keys.begin(), keys.end(), random);
      EXPECT_EQ(Patterns(keys), expected) << kind.name << ", seed " << seed;
    }
  }
}

// Whether six letters or digits in a row of an id stand in what an audit shows of families.
bool IsShown(const std::vector<Family>& families, const std::string& id) {
  const auto is_alphanumeric = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  for (size_t at = 0; at + 6 <= id.size(); ++at) {
    const std::string piece = id.substr(at, 6);
    if (!std::all_of(piece.begin(), piece.end(), is_alphanumeric)) continue;
    // Masked letters and digits of captures may look like the piece.
    if (piece.find_first_not_of("xX0") == std::string::npos) continue;
    for (const Family& family : families) {
      std::string shown = family.pattern.text();
      for (const auto& [reason, keys] : family.odd) shown += ' ' + reason;
      for (const std::string& key : family.stats.examples) shown += ' ' + MaskKey(family.pattern, key);
      if (shown.find(piece) != std::string::npos) return true;
    }
  }
  return false;
}

// Ids alone and in small families, behind prefixes and before suffixes, where nothing but their letters tells
// them from words.
TEST(Family, ATokenIsNeverShown) {
  const std::string lower = kLower, digit = kDigit;
  std::string upper = lower;
  for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
  const std::string alphanumeric = lower + upper + digit;
  const std::vector<std::pair<std::string, size_t>> kinds = {{alphanumeric + "-_", 21},
                                                             {lower, 21},
                                                             {lower, 10},
                                                             {lower, 14},
                                                             {upper + "234567", 26},
                                                             {alphanumeric, 27},
                                                             {lower + digit, 12},
                                                             {"0123456789abcdef", 32},
                                                             {alphanumeric + "+/", 43},
                                                             {lower + "abcdefghijklmnopqrstuvwxyz-", 24},
                                                             {digit, 6},
                                                             {digit, 12}};
  const std::vector<std::string> prefixes = {"",     "sess:", "user_", "app-",   "sess.",
                                             "a/b/", "acme|", "sess",  "a:app-", "laravel_database_"};
  const std::vector<std::string> suffixes = {"", ":data", "_v2", ".lock", "/items", "@example.com"};
  std::mt19937 random(4);
  for (const auto& [alphabet, length] : kinds) {
    for (const size_t ids : {1, 2, 3, 10}) {
      for (int i = 0; i < 200; ++i) {
        const std::string& prefix = prefixes[random() % prefixes.size()];
        const std::string& suffix = suffixes[random() % suffixes.size()];
        std::vector<std::string> drawn;
        std::vector<Known> keys;
        for (size_t k = 0; k < ids; ++k) {
          drawn.push_back(Draw(random, alphabet, length));
          keys.push_back({prefix + drawn.back() + suffix});
        }
        const std::vector<Family> families = Discover(keys);
        for (const std::string& id : drawn)
          ASSERT_FALSE(IsShown(families, id))
              << prefix << id << suffix << " in " << families[0].pattern.text();
      }
    }
  }
}

// What is made of known words, short, or part of many keys stays, however few or many keys there are.
TEST(Family, NamesWithoutRiskAreShown) {
  for (const char* key :
       {"config:maintenance", "laravel_database_users", "bull:emails:meta", "bull:mail:stalled-check",
        "threadr:subscriptions:active", "_kombu.binding.celery", "unacked_mutex", "shop:production:index",
        "userProfileUpdatedAt:HTTPServerNode12", "ratelimits:passwordresets", "resque:failed"}) {
    EXPECT_EQ(PatternOf(key), key);
  }
  EXPECT_EQ(PatternOf("acmecorporation:users:1"), "{token}:users:{users_id:int}");
  EXPECT_EQ(PatternOf("otp493817"), "{token}");
  EXPECT_EQ(PatternOf("kqwx.zvtr.plmf.qdjs"), "kqwx.zvtr.plmf.{token}");
  std::vector<Known> keys;
  for (int i = 0; i < 100; ++i) keys.push_back({"acmecorporation:users:" + std::to_string(i)});
  EXPECT_EQ(Patterns(keys), (Expected{{"acmecorporation:users:{users_id:int}", 100}}));
  // Beside others of its kind, not even many keys make an id a word.
  keys.clear();
  std::mt19937 random(5);
  for (int i = 0; i < 10; ++i) {
    const std::string id = "mo" + Draw(random, "aeiou", 1) + "ta" + Draw(random, "lnrst", 2) + "ingers";
    for (int k = 0; k < 100; ++k) keys.push_back({"cart:" + id + ":" + std::to_string(k)});
  }
  EXPECT_EQ(Patterns(keys), (Expected{{"cart:{token}:{id:int}", 1000}}));
}

TEST(Family, LeadingZerosAreKept) {
  std::vector<Known> keys;
  for (int i = 0; i < 200; ++i) {
    const std::string n = std::to_string(i * 4973 % 1000000);
    keys.push_back({"otp:" + std::string(6 - n.size(), '0') + n});
  }
  EXPECT_EQ(Patterns(keys), (Expected{{"otp:{code}", 200}}));
}

TEST(Family, MasksCaptures) {
  const auto mask = [](const char* pattern, Bytes key) {
    return MaskKey(KeyPattern::Parse(pattern).value(), key);
  };
  EXPECT_EQ(mask("u:{email:email}", "u:Ada.17@example.com"), "u:Xxx.00@xxxxxxx.xxx");
  EXPECT_EQ(mask("u:{name}:x", "u:j\xc3\xb6:x"), "u:x??:x");
  EXPECT_EQ(mask("u:{id:int}", "v:Key"), "x:Xxx");
  EXPECT_EQ(mask("*", "u:1"), "x:0");
}

std::string FrameworkOf(const std::string& key, const std::string& type, ValueKind kind, size_t digits = 0,
                        const std::string& field = "") {
  FamilyStats stats;
  KeyFacts facts;
  facts.type = type;
  facts.kind = kind;
  facts.integer_digits = digits;
  facts.field = field;
  stats.Add(key, &facts);
  const FrameworkLayout* layout = FindFrameworkLayout(stats);
  return layout == nullptr ? "" : layout->framework;
}

TEST(FrameworkLayout, IsToldByNameTypeAndValue) {
  EXPECT_EQ(FrameworkOf("sess:abc", "string", ValueKind::kJsonObject), "express-session (connect-redis)");
  EXPECT_EQ(FrameworkOf("sess:abc", "string", ValueKind::kBinary), "");
  EXPECT_EQ(FrameworkOf("session:abc", "string", ValueKind::kMsgpack), "Flask-Session");
  EXPECT_EQ(FrameworkOf("scs:session:abc", "string", ValueKind::kBinary), "scs (Go)");
  EXPECT_EQ(FrameworkOf("rlflx:1.2.3.4", "string", ValueKind::kInteger, 1), "rate-limiter-flexible");
  EXPECT_EQ(FrameworkOf("user123", "string", ValueKind::kInteger, 19), "redis-cell or throttled");
  EXPECT_EQ(FrameworkOf("user123", "string", ValueKind::kInteger, 3), "");
  EXPECT_EQ(FrameworkOf("rack::attack:29000000:req/ip:1.2.3.4", "string", ValueKind::kInteger, 1),
            "rack-attack");
  EXPECT_EQ(FrameworkOf("LIMITS:LIMITER/1.2.3.4/10/1/minute", "string", ValueKind::kInteger, 1),
            "limits (Flask-Limiter)");
  EXPECT_EQ(FrameworkOf(":1:axes-" + std::string(64, 'a'), "string", ValueKind::kInteger, 1), "django-axes");
  EXPECT_EQ(FrameworkOf("defender:failed:ip:1.2.3.4", "string", ValueKind::kInteger, 1), "django-defender");
  EXPECT_EQ(FrameworkOf(":1:django.contrib.sessions.cached_dbabc", "string", ValueKind::kPickle),
            "Django sessions in the cache");
  EXPECT_EQ(FrameworkOf(":1:views.x", "string", ValueKind::kPickle), "Django cache");
  EXPECT_EQ(FrameworkOf("app:thing", "string", ValueKind::kRails), "Rails cache");
  EXPECT_EQ(FrameworkOf("myapp_database_laravel_cache:key", "string", ValueKind::kPhp), "Laravel cache");
  EXPECT_EQ(FrameworkOf("shop-database-shop-cache-key", "string", ValueKind::kPhp), "Laravel cache");
  EXPECT_EQ(FrameworkOf("shop_database_shop_cache_key", "string", ValueKind::kPhp), "Laravel cache");
  const std::string id = "q7TzPl0aBcKq7TzPl0aBcKq7TzPl0aBcKq7TzPl0";
  for (const char* prefix : {"laravel_database_", "laravel_database_laravel_cache:", "laravel_cache_",
                             "shop-database-shop-cache-", "shop-database-", "shop-cache-"}) {
    EXPECT_EQ(FrameworkOf(prefix + id, "string", ValueKind::kPhp), "Laravel sessions") << prefix;
  }
  EXPECT_EQ(FrameworkOf("shop-database-queues:mail", "list", ValueKind::kJsonObject), "Laravel queue");
  EXPECT_EQ(FrameworkOf("spring:session:sessions:abc", "hash", ValueKind::kJava), "Spring Session");
  EXPECT_EQ(FrameworkOf("PHPREDIS_SESSION:abc", "string", ValueKind::kPhp), "PHP sessions (phpredis)");
  EXPECT_EQ(FrameworkOf("any", "hash", ValueKind::kInteger, 2, "sldexp"), "ASP.NET Core distributed cache");
  EXPECT_EQ(FrameworkOf("queue:default", "list", ValueKind::kJsonObject), "Sidekiq");
  EXPECT_EQ(FrameworkOf("bull:mail:17", "hash", ValueKind::kJsonObject, 0, "data"), "BullMQ");
  EXPECT_EQ(FrameworkOf("bull:mail:wait", "list", ValueKind::kInteger, 1), "BullMQ");
  EXPECT_EQ(FrameworkOf("celery", "list", ValueKind::kJsonObject), "Celery");
  EXPECT_EQ(FrameworkOf("celery\x06\x16"
                        "3",
                        "list", ValueKind::kJsonObject),
            "Celery");
  EXPECT_EQ(FrameworkOf("rq:job:abc", "hash", ValueKind::kZlib), "RQ");
  EXPECT_EQ(FrameworkOf("resque:queue:mail", "list", ValueKind::kJsonObject), "Resque");
  EXPECT_EQ(FrameworkOf("queues:default:delayed", "zset", ValueKind::kJsonObject), "Laravel queue");
  EXPECT_EQ(FrameworkOf("request_rate_limiter.{ada}.tokens", "string", ValueKind::kInteger, 2),
            "Spring Cloud Gateway");
  EXPECT_EQ(FrameworkOf("threadr:user:1", "string", ValueKind::kJsonObject), "");
}

}  // namespace
}  // namespace prm
