#include "source/busy_meter.h"

#include <algorithm>

#include "source/key_reply.h"
#include "source/server_abilities.h"

namespace prm::source {

Status BusyMeter::Open() {
  if (budget_ == nullptr) return {};
  const auto time = MayUse(connection_, {"TIME"});
  if (!time.ok()) return time.error();
  has_time_ = time.value();
  return {};
}

void BusyMeter::AskBefore() {
  if (budget_ != nullptr) asked_us_.push_back(RereadBudget::NowUs());
  AskAfter();
}

void BusyMeter::AskAfter() {
  if (has_time_) connection_.Append({"TIME"});
}

// Where the server does not tell its time, ours.
Result<int64_t> BusyMeter::TakeTime() {
  if (!has_time_) return RereadBudget::NowUs();
  const auto reply = connection_.Receive();
  if (!reply.ok()) return reply.error();
  return ParseTimeUs(connection_, reply.value());
}

Status BusyMeter::TakeBefore() {
  if (budget_ == nullptr) return {};
  const auto time = TakeTime();
  if (!time.ok()) return time.error();
  before_us_ = time.value();
  return {};
}

Status BusyMeter::TakeAfter(size_t keys) {
  if (budget_ == nullptr) return {};
  const int64_t asked_us = asked_us_.front();
  asked_us_.pop_front();
  const auto time = TakeTime();
  if (!time.ok()) return time.error();
  const int64_t now_us = RereadBudget::NowUs();
  // The server's clock may have been set meanwhile.
  budget_->Spend(keys, std::min(time.value() - before_us_, now_us - asked_us), now_us);
  return {};
}

Status BusyMeter::Ping() {
  if (budget_ == nullptr) return {};
  const int64_t asked_us = RereadBudget::NowUs();
  if (is_ping_refused_ || !budget_->WantsPing(asked_us)) return {};
  const auto answer = connection_.Command({"PING"});
  const bool is_lost = !answer.ok() && (answer.error().code == ErrorCode::kConnectionFailure ||
                                        answer.error().code == ErrorCode::kTimeout);
  if (is_lost) return answer.error();
  is_ping_refused_ = !answer.ok() && IsMissingCommand(answer.error());
  const int64_t now_us = RereadBudget::NowUs();
  budget_->NotePing(now_us - asked_us, now_us);
  return {};
}

}  // namespace prm::source
