// Values that are known without reading: by themselves, and against a server that runs the same commands.
#include "stream/known_values.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "lib/cpp/follower.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"

namespace prm::stream {
namespace {

using namespace source;

constexpr size_t kBytes = 1000000;

Entry EntryOf(const std::string& key, const std::string& value = "") {
  Entry entry;
  entry.key = key;
  entry.plain = true;
  entry.payload = value;
  return entry;
}

// "value@expiry" after the edit; "?": it cannot be told.
std::string Applied(KnownValues& known, Edit edit, int64_t amount, const std::string& text = "") {
  Entry entry = EntryOf("k", text);
  entry.plain = false;
  if (!known.Apply(edit, amount, entry)) return "?";
  EXPECT_EQ(entry.state, EntryState::kRead);
  EXPECT_TRUE(entry.plain);
  return entry.payload + "@" + std::to_string(entry.expires_at_ms.value_or(-1));
}

TEST(KnownValuesTest, Numbers) {
  KnownValues known(kBytes);
  EXPECT_EQ(Applied(known, Edit::kAdd, 1), "?");
  known.Note(EntryOf("k", "-3"));
  EXPECT_EQ(Applied(known, Edit::kAdd, 5), "2@-1");
  EXPECT_EQ(Applied(known, Edit::kExpireAt, 77), "2@77");
  EXPECT_EQ(Applied(known, Edit::kAdd, -3), "-1@77");
  // redis.io/commands/incr: "a string that can not be represented as integer", and no overflow.
  for (const char* value :
       {"", " 1", "1 ", "+1", "01", "-0", "1.0", "9223372036854775808", "9223372036854775807", "x", "0x10"}) {
    known.Note(EntryOf("k", value));
    EXPECT_EQ(Applied(known, Edit::kAdd, 1), "?") << value;
    EXPECT_EQ(Applied(known, Edit::kPersist, 0), "?") << value;  // it is forgotten
  }
  known.Note(EntryOf("k", "9223372036854775807"));
  EXPECT_EQ(Applied(known, Edit::kAdd, -1), "9223372036854775806@-1");
  known.NoteGone(0, "k");
  EXPECT_EQ(Applied(known, Edit::kAdd, -4), "-4@-1");
}

TEST(KnownValuesTest, Texts) {
  KnownValues known(kBytes);
  known.NoteGone(0, "k");
  EXPECT_EQ(Applied(known, Edit::kAppend, 0, "a"), "a@-1");
  EXPECT_EQ(Applied(known, Edit::kAppend, 0, std::string("\0b", 2)), std::string("a\0b@-1", 6));
  EXPECT_EQ(Applied(known, Edit::kExpireAt, 5), std::string("a\0b@5", 5));
  EXPECT_EQ(Applied(known, Edit::kReplace, 0, "c"), "c@5");
  EXPECT_EQ(Applied(known, Edit::kPersist, 0), "c@-1");
  known.NoteGone(0, "k");
  EXPECT_EQ(Applied(known, Edit::kPersist, 0), "?");
  known.NoteGone(0, "k");
  EXPECT_EQ(Applied(known, Edit::kExpireAt, 5), "?");
  known.NoteGone(0, "k");
  EXPECT_EQ(Applied(known, Edit::kReplace, 0, ""), "@-1");
  known.Forget(0, "k");
  EXPECT_EQ(Applied(known, Edit::kAppend, 0, "a"), "?");
  known.Note(EntryOf("k", "a"));
  known.Clear();
  EXPECT_EQ(Applied(known, Edit::kAppend, 0, "a"), "?");
}

TEST(KnownValuesTest, OnlySmallOnes) {
  KnownValues known(kBytes);
  known.Note(EntryOf("k", std::string(1025, 'x')));
  EXPECT_EQ(Applied(known, Edit::kPersist, 0), "?");
  known.Note(EntryOf("k", std::string(1024, 'x')));
  EXPECT_EQ(Applied(known, Edit::kAppend, 0, "y"), std::string(1024, 'x') + "y@-1");
  EXPECT_EQ(Applied(known, Edit::kPersist, 0), "?");
  Entry unread = EntryOf("k");
  unread.state = EntryState::kVanished;
  known.Note(EntryOf("k", "a"));
  known.Note(unread);
  EXPECT_EQ(Applied(known, Edit::kPersist, 0), "?");
}

TEST(KnownValuesTest, TheLastUsedStay) {
  KnownValues known(kBytes);
  Entry other = EntryOf("k", "other database");
  other.db = 1;
  known.Note(other);
  known.Note(EntryOf("k", "1"));
  for (int i = 0; i < 100000; ++i) {
    known.Note(EntryOf("key " + std::to_string(i), "value"));
    if (i % 100 == 0) ASSERT_NE(Applied(known, Edit::kAdd, 1), "?") << i;
  }
  EXPECT_EQ(Applied(known, Edit::kAdd, 0), "1001@-1");
  int kept = 0;
  for (int i = 0; i < 100000; ++i) {
    Entry entry = EntryOf("key " + std::to_string(i));
    if (known.Apply(Edit::kPersist, 0, entry)) ++kept;
  }
  EXPECT_GT(kept, 500);
  EXPECT_LT(kept, 10000);
  EXPECT_FALSE(known.Apply(Edit::kPersist, 0, other));
}

// Random commands; their stream alone, and now and then a read, tell what the server has.
class KnownValuesOfServer : public testing::TestWithParam<unsigned> {
 protected:
  void Run(const std::vector<std::string>& command) {
    try {
      client_.Command(command);
    } catch (const std::runtime_error&) {  // a wrong type, an overflow: the stream does not have it
    }
  }

  void RunOne() {
    const auto below = [&](int limit) { return static_cast<int>(random_() % static_cast<unsigned>(limit)); };
    const std::string k = "k" + std::to_string(below(8));
    const std::string n = std::to_string(below(2000) - 1000);
    const std::string later = std::to_string(1900000000000 + below(100000));
    const std::vector<std::vector<std::string>> commands = {
        {"SET", k, n},
        {"SET", k, n, "PXAT", later},
        {"SET", k, n, "EX", "1000"},
        {"SET", k, n, "KEEPTTL"},
        {"SET", k, "text", "XX", "KEEPTTL"},
        {"SET", k, n, "NX"},
        {"SET", k, "9223372036854775800"},
        {"SET", k, std::string(static_cast<size_t>(below(2000)), 'x')},
        {"SET", k, "1", "PX", "1"},
        {"GETSET", k, n},
        {"SETNX", k, n},
        {"MSET", k, n, "k1", "5"},
        {"INCR", k},
        {"INCR", k},
        {"DECR", k},
        {"INCRBY", k, n},
        {"DECRBY", k, n},
        {"INCRBYFLOAT", k, "1.5"},
        {"APPEND", k, n},
        {"APPEND", k, ""},
        {"APPEND", k, "tail"},
        {"SETRANGE", k, "3", "yyy"},
        {"SETBIT", k, "7", "1"},
        {"EXPIRE", k, "1000"},
        {"EXPIRE", k, "100000", "GT"},
        {"EXPIRE", k, "1000", "NX"},
        {"EXPIRE", k, "0"},
        {"PEXPIREAT", k, later},
        {"PEXPIREAT", k, later, "LT"},
        {"EXPIREAT", k, "1900000000", "XX"},
        {"PERSIST", k},
        {"GETEX", k, "PXAT", later},
        {"GETEX", k, "PERSIST"},
        {"GETDEL", k},
        {"DEL", k},
        {"UNLINK", k},
        {"HSET", k, "f", n},
        {"RPUSH", k, n},
        {"RENAME", k, "k0"},
        {"COPY", k, "k2", "REPLACE"},
        {"MULTI"},
        {"EXEC"},
        {"EVAL", "redis.call('INCR', KEYS[1]) redis.call('APPEND', KEYS[1], '7')", "1", k},
    };
    Run(commands[static_cast<size_t>(below(static_cast<int>(commands.size())))]);
  }

  // In the form of `states`: type, value or DUMP, expiry.
  std::string StateOf(const Entry& entry) {
    std::string value = entry.payload;
    if (TypeOf(entry).value() != rdb::ValueType::kString) value = "a DUMP";
    return std::string(rdb::TypeName(TypeOf(entry).value())) + " " + value + "@" +
           std::to_string(entry.expires_at_ms.value_or(-1));
  }
  std::string TruthOf(const std::string& key) {
    const std::string type = client_.String({"TYPE", key});
    if (type == "none") return "none";
    return type + " " + (type == "string" ? client_.String({"GET", key}) : "a DUMP") + "@" +
           std::to_string(client_.Integer({"PEXPIRETIME", key}));
  }

  void Take(const std::string& stream) {
    changes_.Feed(stream, {});
    std::vector<StreamChange> found;
    while (true) {
      const auto next = changes_.Next(found);
      ASSERT_TRUE(next.ok()) << next.error().message << next.error().detail;
      if (!next.value()) break;
    }
    for (StreamChange& change : found) {
      const std::string key = change.entry.key;
      switch (change.kind) {
        case ChangeKind::kSet:
          known_.Note(change.entry);
          states_[key] = StateOf(change.entry);
          break;
        case ChangeKind::kDelete:
          known_.NoteGone(0, key);
          states_[key] = "none";
          break;
        case ChangeKind::kChanged:
          if (known_.Apply(change.edit, change.amount, change.entry)) {
            states_[key] = StateOf(change.entry);
            ++applied_;
          } else {
            known_.Forget(0, key);
            states_.erase(key);
          }
          break;
        default:
          FAIL();
      }
    }
  }

  test::RedisServer server_{{"--repl-diskless-sync-delay", "0"}};
  test::RedisClient client_{server_.port()};
  std::minstd_rand random_{GetParam()};
  test::Follower follower_{server_.port()};
  Interrupts interrupts_;
  StreamChanges changes_{StreamPosition{follower_.start.offset, 0}, redis::StreamLimits{}, interrupts_};
  KnownValues known_{kBytes};
  std::map<std::string, std::string> states_;  // that are known
  int applied_ = 0;
};

TEST_P(KnownValuesOfServer, AsTheServerHasThem) {
  int compared = 0;
  for (int round = 0; round < 150 && !HasFatalFailure(); ++round) {
    for (int i = 0; i < 40; ++i) RunOne();
    Run({"EXEC"});
    usleep(2000);
    for (int k = 0; k < 8; ++k)
      client_.Command({"EXISTS", "k" + std::to_string(k)});  // what has expired goes
    const std::string end = "end " + std::to_string(round);
    client_.Command({"PUBLISH", "c", end});
    const size_t before = follower_.stream.size();
    ASSERT_TRUE(follower_.ReadUntil(end + "\r\n", 10000));
    Take(follower_.stream.substr(before));
    for (int k = 0; k < 8; ++k) {
      const std::string key = "k" + std::to_string(k);
      const std::string truth = TruthOf(key);
      if (const auto state = states_.find(key); state != states_.end()) {
        EXPECT_EQ(state->second, truth) << key << " in round " << round;
        ++compared;
      } else if (truth != "none") {
        // As it is read again.
        Entry entry = EntryOf(key, client_.String({"DUMP", key}));
        entry.plain = false;
        const int64_t expiry = client_.Integer({"PEXPIRETIME", key});
        if (expiry >= 0) entry.expires_at_ms = expiry;
        known_.Note(entry);
      }
    }
  }
  EXPECT_GT(compared, 600);
  EXPECT_GT(applied_, 800);
}

INSTANTIATE_TEST_SUITE_P(Seeds, KnownValuesOfServer, testing::Values(1U, 2U, 3U));

}  // namespace
}  // namespace prm::stream
