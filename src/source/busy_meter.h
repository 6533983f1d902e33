// Measures, for a budget, how long commands keep a server busy: by its own clock, as what passes here holds
// the network, and the time in which answers wait to be read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "core/status.h"
#include "redis/connection.h"
#include "source/reread_budget.h"

namespace prm::source {

class BusyMeter {
 public:
  // budget: nullptr: nothing is measured. Both must outlive it.
  BusyMeter(redis::Connection& connection, RereadBudget* budget) : connection_(connection), budget_(budget) {}

  // Finds out whether the server tells its time. Errors: those of Connection::Command.
  Status Open();

  // Append a question to the pipeline, before and after the commands that are measured.
  void AskBefore();
  void AskAfter();
  // Receives the answer to the one before.
  Status TakeBefore();
  // Receives the answer to the one after. The commands in between have read so many keys.
  Status TakeAfter(size_t keys);

  // Now and then, with nothing pending: how quickly the server answers, if it does at all. Errors: the loss
  // of the connection.
  Status Ping();

 private:
  Result<int64_t> TakeTime();

  redis::Connection& connection_;
  RereadBudget* budget_;
  bool has_time_ = false;
  bool is_ping_refused_ = false;
  std::deque<int64_t> asked_us_;  // when, by our clock, for each measurement that is under way
  int64_t before_us_ = 0;         // by the server's
};

}  // namespace prm::source
