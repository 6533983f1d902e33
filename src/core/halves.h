// Goes through items in order and halves a range that fails, until the items that fail are alone.
#pragma once

#include <cstddef>
#include <vector>

namespace prm {

class Halves {
 public:
  // The items from `begin` to before `end`.
  explicit Halves(size_t end, size_t begin = 0) : begin_(begin), ends_{end} {}

  // The range to try next: from begin() to before end(). Not if done().
  bool done() const { return ends_.empty() || begin_ == ends_.front(); }
  size_t begin() const { return begin_; }
  size_t end() const { return ends_.back(); }

  // The range failed: its first half is next. False if it is a single item.
  bool Split() {
    size_t const count = end() - begin_;
    if (count < 2) return false;
    ends_.push_back(begin_ + count / 2);
    return true;
  }

  // The range is done with: the one behind it is next.
  void Next() {
    begin_ = end();
    ends_.pop_back();
  }

 private:
  size_t begin_;
  std::vector<size_t> ends_;  // of the ranges that begin where the one before ends; the last one is the next
};

}  // namespace prm
