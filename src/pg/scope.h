// The base of scopes that leave their clean-up after an error to the abort of the (sub)transaction.
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
  // Whether an exception is leaving the scope.
  bool unwinds() const { return std::uncaught_exceptions() != exceptions_; }

 private:
  int const exceptions_ = std::uncaught_exceptions();
};

}  // namespace prm::pg
