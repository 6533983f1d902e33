// The base of scopes that, when an error ends them, leave their clean-up to the abort of the
// (sub)transaction.
#pragma once

#include <exception>

namespace prm::pg {

class Scope {
 public:
  Scope(const Scope &) = delete;
  Scope &operator=(const Scope &) = delete;

 protected:
  Scope() = default;
  ~Scope() = default;
  // Whether an exception leaves the scope.
  bool unwinds() const { return std::uncaught_exceptions() != exceptions_; }

 private:
  int const exceptions_ = std::uncaught_exceptions();
};

}  // namespace prm::pg
