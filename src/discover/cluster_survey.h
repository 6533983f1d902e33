// Surveys the keys of a Redis Cluster: one node after the other with a ServerSurvey, each key once.
//
// The counts of a single key cannot be reversed. So the keys of a node are settled as a whole, when a scan
// has settled all slots that it was to read (source/cluster_walk.h). If slots moved or the node failed, the
// caller drops all keys since the last settled page, and the slots are read again from the nodes that serve
// them then.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "discover/survey.h"
#include "redis/cluster_slots.h"
#include "redis/deployment.h"
#include "source/cluster_walk.h"

namespace prm {

class ClusterSurvey : public Survey {
 public:
  // Ignores options.databases: a cluster has only database 0. Waiter and curiosity must outlive the survey.
  // Uses one connection, and briefly another one. Does not wait.
  ClusterSurvey(const redis::Deployment& deployment, const SurveyOptions& options, Curiosity& curiosity,
                redis::Waiter& waiter);

  // Errors: those of ServerSurvey and of redis::FindTopology; kUnavailable when slots have left the node that
  // was being read, are not served, or are being moved. After kUnavailable, kConnectionFailure and kTimeout,
  // once the caller has dropped the unsettled keys, Next continues.
  Result<bool> Next(SurveyPage& page) override;
  std::vector<std::string> missing() const override;
  bool no_touch() const override;

 private:
  // Leaves out the keys of unwanted slots: a node may hold keys of slots that are being moved.
  class SlotCuriosity : public Curiosity {
   public:
    explicit SlotCuriosity(Curiosity& inner) : inner_(inner) {}
    Question Ask(int db, Bytes key) override {
      return wanted[redis::KeySlot(key)] ? inner_.Ask(db, key) : Question::kIgnore;
    }
    redis::Slots wanted;

   private:
    Curiosity& inner_;
  };

  Result<bool> NextOfNode(SurveyPage& page);
  Status BeginNode();
  Status CheckServed(const SurveyPage& page);
  Status FinishNode();
  void LeaveNode();

  source::ClusterWalk walk_;
  SurveyOptions options_;
  SlotCuriosity curiosity_;
  bool knows_topology_ = false;
  uint64_t epoch_ = 0;  // of the walk, when the survey of the node began
  redis::Slots done_;
  std::unique_ptr<ServerSurvey> survey_;  // of the node that is being read
  std::set<std::string> missing_;         // from the nodes before it
  bool no_touch_ = true;                  // of the nodes before it
};

}  // namespace prm
