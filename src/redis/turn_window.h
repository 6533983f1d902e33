// How much of a pipeline may be sent before its beginning has been answered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

namespace prm::redis {

// Commands are divided into turns, of which only a few are under way at a time. Commands and their bytes are
// counted from the first on.
class TurnWindow {
 public:
  // At most so many turns are under way, at least one.
  void Allow(size_t turns) { allowed_ = turns; }

  // A command was queued.
  void Append() { ++commands_; }

  // The commands queued so far, which have so many bytes, end a turn. Without any since the last end nothing
  // happens.
  void End(uint64_t bytes) {
    if (commands_ == ended_) return;
    ended_ = commands_;
    turns_.push_back({commands_, bytes});
  }

  // Up to which byte may be sent, if so many commands have no answer. all: the bytes of all commands queued;
  // those behind the last end count as a turn. It never becomes less.
  uint64_t MaySend(uint64_t unanswered, uint64_t all) {
    while (!turns_.empty() && turns_.front().commands <= commands_ - unanswered) turns_.pop_front();
    return turns_.size() < allowed_ ? all : turns_[allowed_ - 1].bytes;
  }

 private:
  struct Turn {
    uint64_t commands;  // in it and before it
    uint64_t bytes;
  };

  size_t allowed_ = 1;
  uint64_t commands_ = 0;
  uint64_t ended_ = 0;      // of them, those in turns that have ended
  std::deque<Turn> turns_;  // that have ended and are not answered, oldest first
};

}  // namespace prm::redis
