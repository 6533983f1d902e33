// Hashes whose fields expire, of a Redis 7.0 behind a proxy that answers as Redis 7.4 and Valkey 9 do.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "lib/cpp/memory_spool.h"
#include "lib/cpp/rdb_file.h"
#include "lib/cpp/rdb_payloads.h"
#include "lib/cpp/rdb_rows.h"
#include "lib/cpp/scan_fixture.h"
#include "rdb/dump.h"
#include "rdb/encoder.h"
#include "source/living_fields.h"
#include "source/rdb_file.h"

namespace prm::source {
namespace {

using test::Name;
using test::Row;
using test::Rows;

constexpr int64_t kPast = 1000000000000;
constexpr int64_t kFuture = 1999999999000;

std::string Bulk(const std::string& bytes) {
  return "$" + std::to_string(bytes.size()) + "\r\n" + bytes + "\r\n";
}

std::string HashPayload(bool valkey, const std::map<std::string, int64_t>& expiries) {
  rdb::CollectionEncoder encoder(rdb::ValueType::kHash);
  for (const auto& [field, expiry] : expiries) {
    if (expiry == 0)
      encoder.AddHashField(field, "v-" + field);
    else
      encoder.AddExpiringHashField(field, "v-" + field, expiry);
  }
  return encoder.Finish(valkey);
}

// The answer of a peer of a newer version; empty: that of Redis 7.0.
class NewerPeer {
 public:
  std::map<std::string, int64_t> expiries;         // of fields
  std::map<std::string, std::string> payloads;     // of keys, for DUMP
  std::string time;                                // reply to TIME
  std::vector<test::RedisProxy::Arguments> asked;  // HPEXPIRETIME of fields
  int times = 0;
  bool forbidden = false;

  std::string operator()(const test::RedisProxy::Arguments& command) {
    if (command[0] == "HPEXPIRETIME") return Expiries(command);
    if (command[0] == "TIME" && ++times > 0 && !time.empty()) return time;
    if (command[0] == "DUMP" && payloads.count(command[1]) > 0) return Bulk(payloads.at(command[1]));
    return "";
  }

 private:
  std::string Expiries(const test::RedisProxy::Arguments& command) {
    if (forbidden) return "-NOPERM User reader has no permissions to run the 'hpexpiretime' command\r\n";
    std::string reply = "*" + std::to_string(command.size() - 4) + "\r\n";
    for (size_t i = 4; i < command.size(); ++i) {
      const auto expiry = expiries.find(command[i]);
      const int64_t none = command[1].empty() ? -2 : -1;
      reply += ":" + std::to_string(expiry == expiries.end() ? none : expiry->second) + "\r\n";
    }
    if (!command[1].empty()) asked.push_back(command);
    return reply;
  }
};

class FieldExpiryTest : public test::ScanFixture {
 protected:
  std::map<Name, Entry> Scan(NewerPeer& peer) {
    return ScanInstead([&peer](const Arguments& command) { return peer(command); });
  }
  static Rows RowsOf(const Entry& entry) {
    const Result<Rows> rows = test::DecodedRows(entry.payload);
    EXPECT_TRUE(rows.ok());
    return rows.ok() ? rows.value() : Rows();
  }
};

TEST_F(FieldExpiryTest, PiecesKeepTheExpiriesOfFields) {
  for (int i = 0; i < 1200; ++i)
    client_.Command({"HSET", "h", "f" + std::to_string(i), "v" + std::to_string(i)});
  options_.max_reply_bytes = 1000;
  NewerPeer peer;
  Rows expected;
  for (int i = 0; i < 1200; ++i) {
    const std::string field = "f" + std::to_string(i);
    if (i % 3 == 1) peer.expiries[field] = kFuture + i;
    if (i % 3 == 2) peer.expiries[field] = i % 2 == 0 ? kPast : -2;
    if (i % 3 == 2) continue;
    Row row = {field, "v" + std::to_string(i)};
    if (i % 3 == 1) row.push_back(std::to_string(kFuture + i));
    expected.push_back(row);
  }
  std::sort(expected.begin(), expected.end());
  const auto entries = Scan(peer);
  const Entry& entry = entries.at({0, "h"});
  ASSERT_EQ(entry.state, EntryState::kRead);
  EXPECT_EQ(RowsOf(entry), expected);
  EXPECT_EQ(rdb::DumpVersion(entry.payload), 12u);
  EXPECT_GT(peer.asked.size(), 2u) << "a page at a time";
}

TEST_F(FieldExpiryTest, PiecesWithoutLivingFieldAreGone) {
  client_.Command({"HSET", "h", "f", std::string(5000, 'v')});
  options_.max_reply_bytes = 1000;
  NewerPeer peer;
  peer.expiries["f"] = kPast;
  EXPECT_EQ(Scan(peer).at({0, "h"}).state, EntryState::kVanished);
}

// A server whose RDB version is unknown is read in pieces, and says so.
TEST_F(FieldExpiryTest, UnknownVersionKeepsTheExpiriesOfFields) {
  client_.Command({"HSET", "h", "f", "v"});
  NewerPeer peer;
  peer.expiries["f"] = kFuture;
  peer.payloads["h"] = test::Framed("\x18 unknown", 99);
  const test::RedisProxy proxy(
      server_.port(), [](const std::vector<Arguments>&) {}, {},
      [&peer](const Arguments& command) { return peer(command); });
  connection_options_.port = proxy.port();
  const auto connection = Connect();
  const auto source = Open(*connection);
  Batch batch;
  ASSERT_TRUE(Next(*source, batch));
  EXPECT_EQ(batch.unknown_version, 99u);
  EXPECT_EQ(RowsOf(batch.entries.at(0)), (Rows{{"f", "v", std::to_string(kFuture)}}));
  while (Next(*source, batch)) EXPECT_FALSE(batch.unknown_version.has_value());
}

// If the user may not run the command, the expiries come from DUMP.
TEST_F(FieldExpiryTest, ForbiddenCommandLeavesDump) {
  client_.Command({"HSET", "h", "f", std::string(5000, 'v')});
  options_.max_reply_bytes = 1000;
  NewerPeer peer;
  peer.forbidden = true;
  peer.payloads["h"] = HashPayload(false, {{"f", kFuture}});
  EXPECT_EQ(RowsOf(Scan(peer).at({0, "h"})), (Rows{{"f", "v-f", std::to_string(kFuture)}}));
}

TEST_F(FieldExpiryTest, DumpsLoseWhatHasExpiredByTheServersClock) {
  for (const bool valkey : {false, true}) {
    for (const std::string name : {"some", "all", "none"}) client_.Command({"HSET", name, "f", "v"});
    NewerPeer peer;
    peer.time = "*2\r\n$10\r\n1500000000\r\n$6\r\n000000\r\n";  // of 2017
    peer.payloads["some"] = HashPayload(valkey, {{"a", 0}, {"b", 1500000000000}, {"c", 1500000000001}});
    peer.payloads["all"] = HashPayload(valkey, {{"a", kPast}, {"b", kPast + 1}});
    peer.payloads["none"] = HashPayload(valkey, {{"a", 0}, {"b", kFuture}});
    const auto entries = Scan(peer);
    EXPECT_EQ(RowsOf(entries.at({0, "some"})), (Rows{{"a", "v-a"}, {"c", "v-c", "1500000000001"}}));
    EXPECT_EQ(rdb::DumpVersion(entries.at({0, "some"}).payload), valkey ? 80u : 12u);
    EXPECT_EQ(entries.at({0, "all"}).state, EntryState::kVanished);
    EXPECT_TRUE(entries.at({0, "all"}).payload.empty());
    EXPECT_EQ(entries.at({0, "none"}).payload, peer.payloads.at("none"));
  }
}

// The clock costs nothing where no field expires.
TEST_F(FieldExpiryTest, ClockIsAskedOnlyWhereFieldsExpire) {
  for (int i = 0; i < 50; ++i) client_.Command({"RPUSH", "l" + std::to_string(i), "x"});
  NewerPeer peer;
  Scan(peer);
  EXPECT_EQ(peer.times, 1) << "whether it may be asked";
}

TEST(LivingFields, KeepsWhatItCannotRead) {
  Interrupts interrupts;
  Entry damaged;
  damaged.payload = HashPayload(false, {{"a", kPast}, {"b", kFuture}});
  damaged.payload[12] = static_cast<char>(damaged.payload[12] ^ 1);
  const std::string before = damaged.payload;
  EXPECT_FALSE(DropExpiredFields(damaged, kFuture, interrupts).ok());
  EXPECT_EQ(damaged.payload, before);
}

// A hash that is outside memory stays there.
TEST(LivingFields, OfALargeHash) {
  Interrupts interrupts;
  const MakeSpool make_spool = [] { return std::make_unique<test::MemorySpool>(); };
  rdb::CollectionEncoder encoder(rdb::ValueType::kHash, make_spool);
  for (int i = 0; i < 500000; ++i) {
    encoder.AddExpiringHashField("field " + std::to_string(i), "value", i % 2 == 0 ? kPast : kFuture);
    ASSERT_TRUE(encoder.Spill().ok());
  }
  Entry entry;
  ASSERT_TRUE(encoder.Finish(false, entry.payload, entry.large).ok());
  const auto all = entry.large;
  ASSERT_NE(all, nullptr);
  EXPECT_FALSE(DropExpiredFields(entry, kFuture, interrupts, make_spool).value()) << "none is left";
  EXPECT_EQ(entry.large, all);
  EXPECT_TRUE(DropExpiredFields(entry, kPast - 1, interrupts, make_spool).value());
  EXPECT_EQ(entry.large, all) << "none has expired";
  EXPECT_TRUE(DropExpiredFields(entry, kPast, interrupts, make_spool).value());
  ASSERT_NE(entry.large, nullptr);
  const test::Rows rows = test::DecodedRows(DumpOf(entry).value()).value();
  ASSERT_EQ(rows.size(), 250000U);
  EXPECT_EQ(rows[0], (test::Row{"field 1", "value", std::to_string(kFuture)}));
}

// Fields that have expired when a file is read are left out, as keys are.
TEST(LivingFields, Files) {
  const auto key = [](const std::string& name, const std::string& payload) {
    return payload.substr(0, 1) + static_cast<char>(name.size()) + name +
           payload.substr(1, payload.size() - rdb::kDumpFrameSize);
  };
  const std::string bytes =
      test::FramedFile("REDIS0012", "\xfe" + std::string(1, '\0') +
                                        key("some", HashPayload(false, {{"a", kPast}, {"b", kFuture}})) +
                                        key("all", HashPayload(false, {{"a", kPast}})));
  test::MemorySource file(bytes);
  test::FunctionFilter filter;
  RdbFileOptions options;
  // From a file that seeds a replication no field is left out: the stream may extend it.
  Batch batch;
  auto seed = RdbFileSource::Open(file, options, filter, {});
  ASSERT_TRUE(seed.ok());
  ASSERT_TRUE(seed.value()->Next(batch).value());
  EXPECT_EQ(test::DecodedRows(batch.entries[0].payload).value(),
            (Rows{{"a", "v-a", std::to_string(kPast)}, {"b", "v-b", std::to_string(kFuture)}}));
  EXPECT_EQ(batch.entries[1].state, EntryState::kRead);
  options.now_ms = kPast;
  auto source = RdbFileSource::Open(file, options, filter, {});
  ASSERT_TRUE(source.ok());
  ASSERT_TRUE(source.value()->Next(batch).value());
  ASSERT_EQ(batch.entries.size(), 2u);
  EXPECT_EQ(test::DecodedRows(batch.entries[0].payload).value(),
            (Rows{{"b", "v-b", std::to_string(kFuture)}}));
  EXPECT_EQ(batch.entries[1].state, EntryState::kExpired);
}

}  // namespace
}  // namespace prm::source
