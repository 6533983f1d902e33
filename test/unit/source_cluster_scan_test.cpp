#include "source/cluster_scan.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_cluster.h"
#include "lib/cpp/scan_fixture.h"

namespace prm::source {
namespace {

// Its id, and the start of a position.
const char kNode[] = "0123456789abcdef0123456789abcdef01234567";

const std::string& Start() {
  static const auto* const start =
      new std::string(std::string("cluster of=") + kNode + "," + std::string(40, 'a') + " done=0-1 node=");
  return *start;
}

TEST(ClusterPositionTest, ReadsWhatItWrites) {
  ClusterPosition position;
  EXPECT_EQ(position.ToString(), "cluster of= done=-");
  position.members = {kNode, std::string(40, 'a')};
  position.done.set(0).set(1);
  position.node = kNode;
  position.slots.set(5).set(6);
  EXPECT_EQ(position.ToString(), Start() + kNode + " epoch=0 slots=5-6");
  position.scan = "run_id=- db=0 cursor=12";
  const std::string text = position.ToString();
  EXPECT_EQ(text, Start() + kNode + " epoch=0 slots=5-6 run_id=- db=0 cursor=12");
  const auto read = ClusterPosition::Parse(text);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read.value().ToString(), text);
}

TEST(ClusterPositionTest, RefusesAnythingElse) {
  const std::string whole = Start() + kNode + " epoch=0 slots=5-6 run_id=- db=0 cursor=12";
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto parsed = ClusterPosition::Parse(whole.substr(0, size));
    if (parsed.ok()) EXPECT_EQ(parsed.value().ToString(), whole.substr(0, size));
  }
  for (const char* text :
       {"", "run_id=- db=0 cursor=0", "cluster done=1", "cluster of= done=", "cluster of= done=1 ",
        "cluster of=x done=1", "cluster of= done=1 node=x slots=1"}) {
    EXPECT_FALSE(ClusterPosition::Parse(text).ok()) << text;
  }
}

class ClusterScanTest : public testing::Test {
 protected:
  static constexpr int kKeys = 3000;

  ClusterScanTest() : cluster_(3) {
    for (int i = 0; i < kKeys; ++i) cluster_.Set("key:" + std::to_string(i), "value " + std::to_string(i));
    deployment_.seeds = {{"127.0.0.1", cluster_.server(0).port()}};
    options_.scan_count = 50;
    options_.batch_keys = 200;
  }

  std::unique_ptr<ClusterScan> Open(const std::string& position = {}) {
    auto source = ClusterScan::Open(deployment_, options_, filter_, position, waiter_);
    if (!source.ok()) throw std::runtime_error(source.error().message + ": " + source.error().detail);
    return std::move(source.value());
  }

  // Takes a batch; the names are added to names_. False at the end.
  bool Take(ClusterScan& source) {
    Batch batch;
    const auto next = source.Next(batch);
    if (!next.ok()) throw std::runtime_error(next.error().message + ": " + next.error().detail);
    for (const Entry& entry : batch.entries) {
      ++names_[entry.key];
      if (entry.state == EntryState::kRead) EXPECT_EQ(entry.payload, "value " + entry.key.substr(4));
    }
    if (next.value()) position_ = batch.position;
    return next.value();
  }

  void ExpectEveryKey() const { EXPECT_EQ(names_.size(), static_cast<size_t>(kKeys)); }

  // Slots of the node that hold keys.
  std::set<size_t> SlotsOf(size_t node) {
    std::set<size_t> slots;
    for (int i = 0; i < kKeys; ++i) {
      const size_t slot = redis::KeySlot("key:" + std::to_string(i));
      if (cluster_.Owner(slot) == node) slots.insert(slot);
    }
    return slots;
  }

  bool Reads(size_t node) { return position_.find(" node=" + cluster_.id(node)) != std::string::npos; }

  test::RedisCluster cluster_;
  redis::Deployment deployment_;
  test::PollWaiter waiter_;
  test::FunctionFilter filter_;
  ScanOptions options_;
  std::map<std::string, int> names_;
  std::string position_;
};

TEST_F(ClusterScanTest, ReadsEveryNodeOnce) {
  const auto source = Open();
  EXPECT_EQ(source->key_count().value_or(0), static_cast<uint64_t>(kKeys));
  while (Take(*source)) continue;
  ExpectEveryKey();
  for (const auto& [name, times] : names_) EXPECT_EQ(times, 1) << name;
  EXPECT_EQ(source->repeated_slots(), 0U);
  EXPECT_EQ(position_,
            "cluster of=" + cluster_.id(0) + "," + cluster_.id(1) + "," + cluster_.id(2) + " done=0-16383");
  EXPECT_FALSE(Take(*Open(position_)));
}

TEST_F(ClusterScanTest, GoesOnFromEachPosition) {
  uint64_t batches = 0;
  for (auto source = Open(); Take(*source); source = Open(position_)) ++batches;
  EXPECT_GT(batches, 15U);
  ExpectEveryKey();
}

// Otherwise the slots that were done in the one would pass for done in the other.
TEST_F(ClusterScanTest, APositionOfAnotherClusterOrServerIsWorthNothing) {
  for (const std::string& position : {"cluster of=" + std::string(40, 'a') + " done=0-16383",
                                      "run_id=" + std::string(40, 'a') + " db=0 cursor=end"}) {
    const auto source = Open(position);
    EXPECT_TRUE(source->restarted());
    names_.clear();
    while (Take(*source)) continue;
    ExpectEveryKey();
  }
  EXPECT_FALSE(Open(position_)->restarted());
  EXPECT_FALSE(ClusterScan::Open(deployment_, options_, filter_, "nonsense", waiter_).ok());
}

// A slot moves from a node that is not read yet to one that is done.
TEST_F(ClusterScanTest, FindsKeysThatMoveToANodeThatIsDone) {
  const auto source = Open();
  while (!Reads(1)) ASSERT_TRUE(Take(*source));
  for (const size_t slot : SlotsOf(2)) {
    if (slot % 10 != 0) continue;
    cluster_.BeginMove(slot, 2, 0);
    cluster_.MoveKeys(slot, 2, 0);
    cluster_.FinishMove(slot, 2, 0);
  }
  while (Take(*source)) continue;
  ExpectEveryKey();
  EXPECT_EQ(source->repeated_slots(), 0U) << "nothing was returned twice";
  for (const auto& [name, times] : names_) EXPECT_EQ(times, 1) << name;
}

// A slot moves from the node that is being read, before its turn, to one that is done.
TEST_F(ClusterScanTest, FindsKeysThatMoveFromTheNodeThatIsRead) {
  const auto source = Open();
  while (!Reads(1)) ASSERT_TRUE(Take(*source));
  for (const size_t slot : SlotsOf(1)) {
    if (slot % 10 != 0) continue;
    cluster_.BeginMove(slot, 1, 0);
    cluster_.MoveKeys(slot, 1, 0);
    cluster_.FinishMove(slot, 1, 0);
  }
  while (Take(*source)) continue;
  ExpectEveryKey();
  EXPECT_GT(source->repeated_slots(), 0U);
}

// A name is returned by SCAN, and its key moves before the value is asked for: ASK, then MOVED.
TEST_F(ClusterScanTest, LeavesSlotsWhoseKeysAnswerThatTheyMoved) {
  size_t slot = redis::kClusterSlots;
  filter_.decide = [&](int, Bytes name) {
    if (slot == redis::kClusterSlots) {
      slot = redis::KeySlot(name);
      cluster_.BeginMove(slot, 0, 2);
      cluster_.MoveKeys(slot, 0, 2);
    }
    return Interest::kRead;
  };
  const auto source = Open();
  while (!Reads(1)) ASSERT_TRUE(Take(*source));
  ASSERT_LT(slot, redis::kClusterSlots);
  EXPECT_EQ(source->repeated_slots(), 1U);
  for (const auto& [name, times] : names_) EXPECT_NE(redis::KeySlot(name), slot) << name << " has moved";
  cluster_.FinishMove(slot, 0, 2);
  while (Take(*source)) continue;
  ExpectEveryKey();
  for (const auto& [name, times] : names_) EXPECT_EQ(times, 1) << name;
}

TEST_F(ClusterScanTest, WaitsForAMoveThatStandsOpen) {
  const size_t slot = *SlotsOf(1).begin();
  cluster_.BeginMove(slot, 1, 2);
  const auto source = Open();
  Batch batch;
  auto next = source->Next(batch);
  while (next.ok() && next.value()) {
    for (const Entry& entry : batch.entries) ++names_[entry.key];
    position_ = batch.position;
    next = source->Next(batch);
  }
  ASSERT_FALSE(next.ok());
  EXPECT_EQ(next.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(next.error().message, "slots " + std::to_string(slot) + " of the cluster are being moved");
  cluster_.MoveKeys(slot, 1, 2);
  cluster_.FinishMove(slot, 1, 2);
  for (const auto later = Open(position_); Take(*later);) continue;
  ExpectEveryKey();
}

TEST_F(ClusterScanTest, ANodeThatWasRestartedIsReadFromItsStart) {
  auto source = Open();
  while (!Reads(1)) ASSERT_TRUE(Take(*source));
  cluster_.client(1).Command({"CONFIG", "SET", "save", "3600 1"});
  cluster_.client(1).Command({"SAVE"});
  source.reset();
  cluster_.server(1).Restart();
  for (bool read = false; !read;) {
    try {
      source = Open(position_);
      while (Take(*source)) continue;
      read = true;
    } catch (const std::runtime_error&) {  // not everybody knows yet that it is back
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
  EXPECT_GT(source->repeated_slots(), 5000U);
  ExpectEveryKey();
}

}  // namespace
}  // namespace prm::source
