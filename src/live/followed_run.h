// A live run as those see it that apply its changes: the process that leads it, and others.
#pragma once

#include "mapping/routing.h"
#include "run/run_record.h"

namespace prm {

// A run that is followed. The arguments of its constructor must outlive it.
class FollowedRun {
 public:
  FollowedRun(const Migration &migration, const Routing &routing, std::string source, RunRecord &record)
      : migration_(migration), routing_(routing), source_(std::move(source)), record_(record) {}

  const Migration &migration() const { return migration_; }
  const Routing &routing() const { return routing_; }
  const std::string &source() const { return source_; }
  RunRecord &record() { return record_; }

 private:
  const Migration &migration_;
  const Routing &routing_;
  std::string source_;
  RunRecord &record_;
};

}  // namespace prm
