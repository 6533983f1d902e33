// Follows a server under a random load with all parts at once: link, spool, changes, keys read again. The
// link and the reader are cut now and then. In the end every key is as the server has it.
#include <gtest/gtest.h>

#include <unistd.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "lib/cpp/follower.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/redis_client.h"
#include "lib/cpp/redis_server.h"
#include "lib/cpp/spool_files.h"
#include "source/named_keys.h"
#include "source/rdb_file.h"
#include "stream/stream_changes.h"
#include "stream/stream_spool.h"

namespace prm::stream {
namespace {

using namespace source;

using redis::ReplicationPoint;
using Name = std::pair<int, std::string>;

constexpr int kDatabases = 3;
constexpr int kKeys = 30;

class EverythingFilter : public KeyFilter {
 public:
  KeyDecision Classify(int, Bytes) override { return {Interest::kRead}; }
};

// Commands of every kind on few keys, so that they meet.
class Load {
 public:
  Load(int port, unsigned seed) : client_(port), random_(seed) {}

  void Run(int count) {
    for (int i = 0; i < count; ++i) {
      if (Below(20) == 0) client_.Command({"SELECT", std::to_string(Below(kDatabases))});
      const bool in_transaction = Below(8) == 0;
      if (in_transaction) client_.Command({"MULTI"});
      for (int left = in_transaction ? 1 + Below(5) : 1; left > 0; --left) One();
      if (in_transaction) Try({"EXEC"});
    }
  }

 private:
  int Below(int limit) { return static_cast<int>(random_() % static_cast<unsigned>(limit)); }
  // A wrong type is part of the load.
  void Try(const std::vector<std::string>& command) {
    try {
      client_.Command(command);
    } catch (const std::runtime_error&) {
    }
  }
  void One() {
    const std::string a = "k" + std::to_string(Below(kKeys));
    const std::string b = "k" + std::to_string(Below(kKeys));
    const std::string n = std::to_string(Below(1000));
    const std::vector<std::vector<std::string>> commands = {
        {"SET", a, n},
        {"SET", a, n, "PX", std::to_string(20 + Below(2000))},
        {"SET", a, n, "KEEPTTL"},
        {"SET", a, std::string(static_cast<size_t>(Below(3000)), 'x')},
        {"SETEX", a, "100", n},
        {"INCR", a},
        {"APPEND", a, n},
        {"GETDEL", a},
        {"GETEX", a, "PERSIST"},
        {"PEXPIRE", a, std::to_string(Below(400))},
        {"EXPIRE", a, "1000"},
        {"PERSIST", a},
        {"DEL", a, b},
        {"UNLINK", a},
        {"RENAME", a, b},
        {"RENAMENX", a, b},
        {"COPY", a, b, "REPLACE"},
        {"COPY", a, b, "DB", std::to_string(Below(kDatabases)), "REPLACE"},
        {"MOVE", a, std::to_string(Below(kDatabases))},
        {"MSET", a, n, b, n},
        {"RPUSH", a, n, n},
        {"LPOP", a, "2"},
        {"LMOVE", a, b, "LEFT", "RIGHT"},
        {"SADD", a, n, "m"},
        {"SPOP", a, "2"},
        {"SREM", a, "m"},
        {"SMOVE", a, b, "m"},
        {"SUNIONSTORE", a, a, b},
        {"HSET", a, "f", n, n, n},
        {"HDEL", a, "f"},
        {"ZADD", a, n, n},
        {"ZPOPMIN", a, "2"},
        {"ZUNIONSTORE", a, "2", a, b},
        {"XADD", a, "*", "f", n},
        {"XTRIM", a, "MAXLEN", "~", "3"},
        {"SETBIT", a, n, "1"},
        {"BITOP", "OR", a, a, b},
        {"PFADD", a, n},
        {"SORT", a, "BY", "nosort", "STORE", b},
        // Of newer servers.
        {"SET", a, n, "IFEQ", n},
        {"SET", a, n, "IFNE", n, "KEEPTTL"},
        {"MSETEX", "2", a, n, b, n, "PX", std::to_string(20 + Below(2000))},
        {"MSETEX", "2", a, n, b, n, "KEEPTTL"},
        {"MSETEX", "1", a, n, "XX"},
        {"DELEX", a},
        {"DELEX", a, "IFEQ", n},
        {"DELIFEQ", a, n},
        {"INCREX", a},
        {"HPEXPIRE", a, std::to_string(Below(400)), "FIELDS", "1", "f"},
        {"HPERSIST", a, "FIELDS", "1", "f"},
        {"HSETEX", a, "PX", std::to_string(20 + Below(400)), "FIELDS", "1", "f", n},
        {"HGETEX", a, "PX", std::to_string(20 + Below(400)), "FIELDS", "1", "f"},
        {"HGETDEL", a, "FIELDS", "1", "f"},
        {"XADD", a, "IDMP", "p", n, "*", "f", n},
        {"XDELEX", a, "IDS", "1", n + "-1"},
        {"EVAL", "redis.call('SET', KEYS[1], ARGV[1]) redis.call('DEL', KEYS[2])", "2", a, b, n},
    };
    Try(commands[static_cast<size_t>(Below(static_cast<int>(commands.size())))]);
    if (Below(400) == 0) Try({"FLUSHDB"});
    if (Below(400) == 0) Try({"SWAPDB", "0", "1"});
  }

  test::RedisClient client_;
  std::minstd_rand random_;
};

// The state of a key that was read again, which is newer than the changes applied so far.
struct Ahead {
  uint64_t since;
  int times_missing;  // in a row; 0: it was there
};

// The rows of an applier, and its position.
struct Stored {
  std::map<Name, std::string> rows;  // "value@expiry"
  ReplicationPoint point;
  int db = 0;
  std::map<Name, Ahead> ahead;
};

std::string TextOf(const test::Rows& rows, int64_t expiry) {
  std::string text;
  for (const test::Row& row : rows) {
    for (const std::string& column : row) text += column + " ";
    text += "\n";
  }
  return text + "@" + std::to_string(expiry);
}

// Independent of the encoding, because SORT, for one, changes that of a sorted set.
std::string RowOf(const Entry& entry) {
  const auto rows = test::CollectRows(TypeOf(entry).value(),
                                      [&](rdb::ValueVisitor& visitor) { return Decode(entry, visitor); });
  return TextOf(rows.value(), entry.expires_at_ms.value_or(-1));
}

class FollowTest : public testing::TestWithParam<std::tuple<const char*, unsigned>> {
 protected:
  // Connects the link anew: after this the spool goes on where it ended, or begins with a snapshot.
  void Connect() {
    link_.reset();
    const auto end = writer_->end();
    link_ = std::make_unique<test::Follower>(server_.port(), end);
    ASSERT_TRUE(link_->status.ok()) << link_->status.error().message;
    if (!link_->link->has_snapshot()) {
      if (link_->start.id != end->id) ASSERT_TRUE(writer_->ChangeId(link_->start.id).ok());
      return;
    }
    ASSERT_FALSE(end);
    ASSERT_TRUE(writer_->Begin(link_->start, true).ok());
    LoadSnapshot();
  }

  void LoadSnapshot() {
    EverythingFilter filter;
    auto source = RdbFileSource::Open(link_->snapshot, {}, filter, "");
    ASSERT_TRUE(source.ok());
    Batch batch;
    while (source.value()->Next(batch).value())
      for (const Entry& entry : batch.entries) stored_.rows[{entry.db, entry.key}] = RowOf(entry);
    stored_.point = link_->start;
  }

  // Spools what comes within a moment, in pieces of any size.
  void Receive(long wait_ms) {
    for (size_t before = SIZE_MAX; before != link_->stream.size();) {
      before = link_->stream.size();
      link_->Read(wait_ms, 1 + random_() % 3000);
      ASSERT_TRUE(link_->status.ok()) << link_->status.error().message;
      const std::string& stream = link_->stream;
      ASSERT_TRUE(writer_->Append(Bytes(stream).substr(before), {0, static_cast<int64_t>(before)}).ok());
      link_->link->Acknowledge(writer_->durable_offset());
    }
    ASSERT_TRUE(writer_->Sync().ok());
  }

  // Opens a reader at what is stored.
  void OpenReader() {
    auto opened = StreamSpoolReader::Open(files_, stored_.point);
    ASSERT_TRUE(opened.ok());
    reader_ = std::move(opened.value());
    ASSERT_NE(reader_, nullptr);
    batch_.clear();
    changes_ = std::make_unique<StreamChanges>(StreamPosition{stored_.point.offset, stored_.db},
                                               redis::StreamLimits{}, interrupts_);
  }

  // Applies what the spool holds, a batch of commands at a time.
  void Apply() {
    SpoolChunk chunk;
    while (true) {
      const auto next = reader_->Next(chunk);
      ASSERT_TRUE(next.ok()) << next.error().detail;
      if (!next.value()) break;
      ASSERT_EQ(chunk.kind, SpoolChunk::Kind::kBytes);
      changes_->Feed(chunk.content, chunk.time);
      while (true) {
        const auto taken = changes_->Next(batch_);
        ASSERT_TRUE(taken.ok()) << taken.error().message << taken.error().detail;
        if (!taken.value()) break;
        if (!changes_->in_transaction() && random_() % 10 == 0) Commit();
      }
    }
    Commit();
  }

  void Commit() {
    std::set<Name> to_read;
    size_t applied = 0;
    // A transaction that has not ended stays out.
    for (; applied < batch_.size() && batch_[applied].offset <= changes_->position().offset; ++applied) {
      const StreamChange& change = batch_[applied];
      switch (change.kind) {
        case ChangeKind::kSet:
        case ChangeKind::kDelete:
        case ChangeKind::kChanged:
          ApplyTo({change.entry.db, change.entry.key}, change, change.kind, to_read);
          break;
        case ChangeKind::kFlush:
        case ChangeKind::kSwap:
          for (const Name& name : NamesOf(change))
            ApplyTo(name, change,
                    change.kind == ChangeKind::kFlush ? ChangeKind::kDelete : ChangeKind::kChanged, to_read);
          break;
        case ChangeKind::kUnknown:
        case ChangeKind::kHidden:
        case ChangeKind::kSlots:
          FAIL() << change.command[0];
      }
    }
    batch_.erase(batch_.begin(), batch_.begin() + static_cast<std::ptrdiff_t>(applied));
    stored_.point.offset = changes_->position().offset;
    stored_.db = changes_->position().db;
    for (auto at = stored_.ahead.begin(); at != stored_.ahead.end();) {
      const auto& [name, ahead] = *at;
      const bool is_passed = ahead.since <= stored_.point.offset;
      // The key was missing, and no change up to that offset explains it.
      const bool is_open = ahead.times_missing > 0 && stored_.rows.count(name) > 0;
      if (is_passed && is_open && ahead.times_missing > 1) stored_.rows.erase(name);  // with its last element
      if (is_passed && is_open && ahead.times_missing == 1) to_read.insert(name);
      at = is_passed && to_read.count(name) == 0 ? stored_.ahead.erase(at) : std::next(at);
    }
    ReadAgain(to_read);
  }

  void ApplyTo(const Name& name, const StreamChange& change, ChangeKind kind, std::set<Name>& to_read) {
    const auto ahead = stored_.ahead.find(name);
    if (ahead != stored_.ahead.end() && change.offset <= ahead->second.since) {
      if (ahead->second.times_missing > 0 && kind == ChangeKind::kDelete) stored_.rows.erase(name);
      return;
    }
    if (ahead != stored_.ahead.end()) stored_.ahead.erase(ahead);
    to_read.erase(name);
    if (kind == ChangeKind::kDelete) stored_.rows.erase(name);
    if (kind == ChangeKind::kSet) stored_.rows[name] = RowOf(change.entry);
    if (kind == ChangeKind::kChanged) to_read.insert(name);
  }

  // The keys that a flush or a swap may concern.
  std::set<Name> NamesOf(const StreamChange& change) const {
    std::set<Name> names;
    for (int db = 0; db < kDatabases; ++db) {
      const bool is_swapped = change.kind == ChangeKind::kSwap && db == change.other_db;
      if (change.entry.db != db && change.entry.db != kEveryDatabase && !is_swapped) continue;
      for (int key = 0; key < kKeys; ++key) names.insert({db, "k" + std::to_string(key)});
    }
    return names;
  }

  void ReadAgain(const std::set<Name>& names) {
    std::vector<NamedKey> keys(names.size());
    size_t at = 0;
    for (const Name& name : names) {
      keys[at].entry.db = name.first;
      keys[at++].entry.key = name.second;
    }
    const Status read = named_->Read(keys);
    ASSERT_TRUE(read.ok()) << read.error().message << read.error().detail;
    for (const NamedKey& key : keys) {
      const Name name{key.entry.db, key.entry.key};
      ASSERT_GE(key.since.offset, stored_.point.offset);
      Ahead& ahead = stored_.ahead[name];
      ahead.since = key.since.offset;
      if (key.entry.state == EntryState::kVanished) {
        ++ahead.times_missing;
      } else {
        ASSERT_EQ(key.entry.state, EntryState::kRead);
        ahead.times_missing = 0;
        stored_.rows[name] = RowOf(key.entry);
      }
    }
  }

  test::RedisServer server_{{"--repl-diskless-sync", std::get<0>(GetParam()), "--repl-diskless-sync-delay",
                             "0", "--repl-backlog-size", "64mb"}};
  std::minstd_rand random_{std::get<1>(GetParam())};
  Interrupts interrupts_;
  test::SpoolFiles files_;
  std::unique_ptr<StreamSpoolWriter> writer_;
  std::unique_ptr<test::Follower> link_;
  std::unique_ptr<StreamSpoolReader> reader_;
  std::unique_ptr<StreamChanges> changes_;
  test::PollWaiter waiter_;
  std::unique_ptr<redis::Connection> connection_;
  std::unique_ptr<NamedKeys> named_;
  std::vector<StreamChange> batch_;
  Stored stored_;
};

TEST_P(FollowTest, EveryKeyInTheEnd) {
  Load load(server_.port(), std::get<1>(GetParam()));
  load.Run(500);
  const auto open_writer = [&] { writer_ = std::move(StreamSpoolWriter::Open(files_, 20000).value()); };
  open_writer();
  Connect();
  OpenReader();
  redis::ConnectionOptions options;
  options.host = "127.0.0.1";
  options.port = server_.port();
  connection_ = std::move(redis::Connection::Open(options, waiter_).value());
  named_ = std::move(NamedKeys::Open(*connection_, {}).value());
  for (int round = 0; round < 60 && !HasFatalFailure(); ++round) {
    load.Run(static_cast<int>(random_() % 100));
    if (random_() % 2 == 0) Receive(1);
    if (random_() % 3 == 0) Apply();
    if (random_() % 5 == 0) OpenReader();
    if (random_() % 5 == 0) {
      open_writer();
      Connect();
    }
    if (random_() % 4 == 0) ASSERT_TRUE(reader_->RemoveUpTo(stored_.point.offset).ok());
  }
  // Every key that may expire has, and nothing more comes: after a few rounds all is decided.
  test::RedisClient client(server_.port());
  usleep(2500000);
  for (int round = 0; round < 5 && !HasFatalFailure(); ++round) {
    client.Command({"SET", "last", std::to_string(round)});
    Receive(100);
    Apply();
  }
  std::map<Name, std::string> expected;
  for (int db = 0; db < kDatabases; ++db) {
    client.Command({"SELECT", std::to_string(db)});
    for (const std::string& key : client.Strings({"KEYS", "*"})) {
      expected[{db, key}] = TextOf(test::RedisRows(client, key), client.Integer({"PEXPIRETIME", key}));
    }
  }
  EXPECT_GT(expected.size(), 5U);
  for (const auto& [name, row] : expected) {
    const auto found = stored_.rows.find(name);
    if (found == stored_.rows.end()) {
      ADD_FAILURE() << name.first << "/" << name.second << " is missing";
      continue;
    }
    EXPECT_EQ(found->second, row) << name.first << "/" << name.second;
  }
  for (const auto& [name, row] : stored_.rows)
    EXPECT_EQ(expected.count(name), 1U) << name.first << "/" << name.second << " should be gone";
}

INSTANTIATE_TEST_SUITE_P(Loads, FollowTest,
                         testing::Combine(testing::Values("no", "yes"), testing::Values(1U, 2U)));

}  // namespace
}  // namespace prm::stream
