// An audit's questions to a server that gives every command every kind of wrong answer.
#include <gtest/gtest.h>

#include "discover/cluster_survey.h"
#include "discover/survey.h"
#include "lib/cpp/hostile_fixture.h"
#include "lib/cpp/redis_client.h"

namespace prm {
namespace {

class EveryQuestion : public Curiosity {
 public:
  Question Ask(int, Bytes) override { return Question::kFactsAndValue; }
};

class HostileSurveyTest : public test::HostileFixture {
 protected:
  HostileSurveyTest() { options_.databases = {0, 1}; }

  static Status TakePages(Survey& survey) {
    SurveyPage page;
    for (int pages = 0; pages < 20; ++pages) {
      const Result<bool> next = survey.Next(page);
      if (!next.ok()) return next.error();
      if (!next.value()) return {};
    }
    return {};
  }

  Status SurveyServer() {
    auto connection = redis::OpenServer(deployment_, waiter_);
    if (!connection.ok()) return connection.error();
    auto survey = ServerSurvey::Open(*connection.value(), options_, curiosity_);
    return survey.ok() ? TakePages(*survey.value()) : Status(survey.error());
  }

  SurveyOptions options_;
  EveryQuestion curiosity_;
};

TEST_F(HostileSurveyTest, Server) {
  TryAll([&] { return SurveyServer(); });
}

// Keys are then asked for their use instead of their idle time.
TEST_F(HostileSurveyTest, ServerThatEvictsByUse) {
  test::RedisClient(server_.port()).Command({"CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"});
  TryAll([&] { return SurveyServer(); });
}

TEST_F(HostileSurveyTest, Cluster) {
  TryAll([&] {
    deployment_.seeds = {{"127.0.0.1", deployment_.connection.port}};
    ClusterSurvey survey(deployment_, options_, curiosity_, waiter_);
    return TakePages(survey);
  });
}

}  // namespace
}  // namespace prm
