#include "discover/cluster_survey.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "lib/cpp/poll_waiter.h"
#include "lib/cpp/redis_cluster.h"

namespace prm::source {
namespace {

// Asks for everything; a function may do something first.
class CallingCuriosity : public Curiosity {
 public:
  Question Ask(int, Bytes key) override {
    if (before) before(key);
    return Question::kFactsAndValue;
  }
  std::function<void(Bytes)> before;
};

class ClusterSurveyTest : public testing::Test {
 protected:
  static constexpr int kKeys = 3000;

  ClusterSurveyTest() : cluster_(3) {
    for (int i = 0; i < kKeys; ++i) cluster_.Set("key:" + std::to_string(i), "value " + std::to_string(i));
    deployment_.seeds = {{"127.0.0.1", cluster_.server(0).port()}};
    options_.scan_count = 50;
    survey_ = std::make_unique<ClusterSurvey>(deployment_, options_, curiosity_, waiter_);
  }

  // Takes a page as a caller does: what is not settled is forgotten after an error. False at the end and
  // after an error.
  bool Take() {
    SurveyPage page;
    const auto next = survey_->Next(page);
    error_ = next.ok() ? Error() : next.error();
    if (!next.ok()) {
      names_ = settled_;
      return false;
    }
    for (const SurveyedKey& key : page.keys) {
      ++names_[key.name];
      EXPECT_EQ(key.facts.type, "string") << key.name << key.refusal;
    }
    if (page.settled) {
      settled_ = names_;
      ++nodes_;
    }
    ended_ = ended_ || page.ends_db;
    return next.value();
  }

  // Resumes whenever that is possible. Returns how often it did.
  int TakeAll() {
    int errors = 0;
    for (;;) {
      while (Take()) continue;
      if (error_.message.empty()) return errors;
      if (error_.code != ErrorCode::kUnavailable || ++errors == 20) {
        ADD_FAILURE() << error_.message;
        return errors;
      }
    }
  }

  void ExpectEveryKeyOnce() const {
    EXPECT_TRUE(ended_);
    EXPECT_EQ(names_.size(), static_cast<size_t>(kKeys));
    for (const auto& [name, times] : names_) EXPECT_EQ(times, 1) << name;
  }

  // Every tenth of the slots of a node that hold keys.
  std::set<size_t> SomeSlotsOf(size_t node) {
    std::set<size_t> slots;
    for (int i = 0; i < kKeys; ++i) {
      const size_t slot = redis::KeySlot("key:" + std::to_string(i));
      if (cluster_.Owner(slot) == node && slot % 10 == 0) slots.insert(slot);
    }
    return slots;
  }

  void Move(size_t slot, size_t from, size_t to) {
    cluster_.BeginMove(slot, from, to);
    cluster_.MoveKeys(slot, from, to);
    cluster_.FinishMove(slot, from, to);
  }

  test::RedisCluster cluster_;
  redis::Deployment deployment_;
  SurveyOptions options_;
  CallingCuriosity curiosity_;
  test::PollWaiter waiter_;
  std::unique_ptr<ClusterSurvey> survey_;
  std::map<std::string, int> names_, settled_;
  Error error_;
  size_t nodes_ = 0;
  bool ended_ = false;
};

TEST_F(ClusterSurveyTest, ReturnsEachKeyOfEachMasterOnce) {
  EXPECT_EQ(TakeAll(), 0);
  ExpectEveryKeyOnce();
  EXPECT_EQ(nodes_, 3U);
  EXPECT_TRUE(survey_->missing().empty());
  EXPECT_FALSE(Take());
}

TEST_F(ClusterSurveyTest, SlotsMoveToANodeThatIsDone) {
  while (nodes_ == 0) ASSERT_TRUE(Take());
  for (const size_t slot : SomeSlotsOf(2)) Move(slot, 2, 0);
  EXPECT_EQ(TakeAll(), 0) << "nothing had been returned of them";
  ExpectEveryKeyOnce();
}

// Slots can move before SCAN has returned a key of them, so that no key shows it.
TEST_F(ClusterSurveyTest, SlotsMoveFromTheNodeThatIsRead) {
  while (nodes_ == 0) ASSERT_TRUE(Take());
  ASSERT_TRUE(Take());
  for (const size_t slot : SomeSlotsOf(1)) Move(slot, 1, 0);
  while (Take()) continue;
  EXPECT_EQ(error_.code, ErrorCode::kUnavailable);
  EXPECT_EQ(TakeAll(), 0);
  ExpectEveryKeyOnce();
}

// A name is returned by SCAN, and its key moves before it is asked about.
TEST_F(ClusterSurveyTest, AKeyAnswersAsk) {
  size_t slot = redis::kClusterSlots;
  curiosity_.before = [&](Bytes name) {
    if (slot != redis::kClusterSlots) return;
    slot = redis::KeySlot(name);
    cluster_.BeginMove(slot, 0, 2);
    cluster_.MoveKeys(slot, 0, 2);
  };
  while (Take()) continue;
  EXPECT_EQ(error_.code, ErrorCode::kUnavailable);
  EXPECT_EQ(error_.message, "Redis at 127.0.0.1:" + std::to_string(cluster_.server(0).port()) +
                                " answered ASK to a question about a key of slot " + std::to_string(slot));
  EXPECT_TRUE(names_.empty());
  // As long as the move stands open, everything else is read.
  while (Take()) continue;
  EXPECT_EQ(error_.message, "slots " + std::to_string(slot) + " of the cluster are being moved");
  EXPECT_FALSE(Take());
  cluster_.FinishMove(slot, 0, 2);
  EXPECT_EQ(TakeAll(), 0);
  ExpectEveryKeyOnce();
}

TEST_F(ClusterSurveyTest, ANodeIsRestarted) {
  cluster_.client(1).Command({"CONFIG", "SET", "save", "3600 1"});
  cluster_.client(1).Command({"SAVE"});
  while (nodes_ == 0) ASSERT_TRUE(Take());
  ASSERT_TRUE(Take());
  cluster_.server(1).Restart();
  while (Take()) continue;
  EXPECT_EQ(error_.code, ErrorCode::kConnectionFailure);
  while (!Take()) ASSERT_NE(error_.message, "") << "until every node knows that it is back";
  EXPECT_EQ(TakeAll(), 0);
  ExpectEveryKeyOnce();
}

TEST_F(ClusterSurveyTest, TellsWhatSomeNodeRefuses) {
  cluster_.client(1).Command({"ACL", "SETUSER", "default", "-pttl"});
  TakeAll();
  ExpectEveryKeyOnce();
  EXPECT_EQ(survey_->missing(), std::vector<std::string>{"PTTL"});
}

}  // namespace
}  // namespace prm::source
