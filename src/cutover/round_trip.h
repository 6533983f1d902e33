// Whether the rows of a sample would write to Redis what it has.
#pragma once

#include "reverse/reverse_check.h"

namespace prm {

class RoundTrip {
 public:
  // Of the rows of these mappings, which are those of the patterns.
  RoundTrip(const Migration &migration, std::vector<std::string> patterns,
            std::vector<ReverseMapping> reverses);

  // Chooses the rows. Commits. Errors: those of the targets.
  void Choose();

  // Throws 55000 if keys differ in so many looks in a row; names some of them, masked. between: before each
  // look but the first. hint: what to do if all of that is known. Commits. Errors: those of ReverseCheck.
  void Require(int looks, const std::function<void()> &between, const std::string &hint);

  // While keys may change: of a key that is deleted again and again each look may find the same.
  static constexpr int kLooks = 8;

 private:
  const Migration &migration_;
  std::vector<std::string> patterns_;
  ReverseCheck check_;
};

}  // namespace prm
