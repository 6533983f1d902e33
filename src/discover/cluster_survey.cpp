#include "discover/cluster_survey.h"

#include <algorithm>
#include <utility>

namespace prm {

using redis::Slots;

ClusterSurvey::ClusterSurvey(const redis::Deployment& deployment, const SurveyOptions& options,
                             Curiosity& curiosity, redis::Waiter& waiter)
    : walk_(deployment, waiter), options_(options), curiosity_(curiosity) {
  options_.databases = {0};
}

Result<bool> ClusterSurvey::Next(SurveyPage& page) {
  Result<bool> next = NextOfNode(page);
  if (!next.ok()) {
    LeaveNode();
    knows_topology_ = false;
  }
  return next;
}

Result<bool> ClusterSurvey::NextOfNode(SurveyPage& page) {
  if (done_.all()) return false;
  if (!survey_) PRM_RETURN_IF_ERROR(BeginNode());
  const Result<bool> next = survey_->Next(page);
  if (!next.ok()) return next.error();
  PRM_RETURN_IF_ERROR(CheckServed(page));
  if (page.ends_db) {
    PRM_RETURN_IF_ERROR(FinishNode());
    page.settled = true;
    page.ends_db = done_.all();
  }
  return true;
}

Status ClusterSurvey::BeginNode() {
  if (!knows_topology_) PRM_RETURN_IF_ERROR(walk_.FindTopology());
  knows_topology_ = true;
  const Result<Slots> slots = walk_.EnterNext(done_);
  if (!slots.ok()) return slots.error();
  curiosity_.wanted = slots.value();
  epoch_ = walk_.epoch();
  auto survey = ServerSurvey::Open(walk_.connection(), options_, curiosity_);
  if (!survey.ok()) return survey.error();
  survey_ = std::move(survey.value());
  return {};
}

// A redirected key reveals a move before the end of the scan does.
Status ClusterSurvey::CheckServed(const SurveyPage& page) {
  for (const SurveyedKey& key : page.keys) {
    for (const char* answer : {"MOVED", "ASK", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "BUSY"}) {
      if (key.refusal != answer) continue;
      return Error{ErrorCode::kUnavailable,
                   "Redis at " + walk_.connection().address() + " answered " + answer +
                       " to a question about a key of slot " + std::to_string(redis::KeySlot(key.name)),
                   {},
                   {}};
    }
  }
  return {};
}

Status ClusterSurvey::FinishNode() {
  const Result<Slots> stable = walk_.StableSlots();
  if (!stable.ok()) return stable.error();
  const Slots left = walk_.epoch() == epoch_ ? curiosity_.wanted & ~stable.value() : curiosity_.wanted;
  if (left.any()) {
    return Error{ErrorCode::kUnavailable,
                 "slots " + redis::SlotsToText(left) + " moved while Redis at " +
                     walk_.connection().address() + " was read",
                 {},
                 {}};
  }
  done_ |= curiosity_.wanted;
  LeaveNode();
  return {};
}

void ClusterSurvey::LeaveNode() {
  if (survey_) {
    for (const std::string& command : survey_->missing()) missing_.insert(command);
    no_touch_ = no_touch_ && survey_->no_touch();
  }
  survey_.reset();
  walk_.Leave();
}

std::vector<std::string> ClusterSurvey::missing() const {
  std::set<std::string> missing = missing_;
  if (survey_) {
    for (const std::string& command : survey_->missing()) missing.insert(command);
  }
  return {missing.begin(), missing.end()};
}

bool ClusterSurvey::no_touch() const { return no_touch_ && (!survey_ || survey_->no_touch()); }

}  // namespace prm
