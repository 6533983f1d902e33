// The PostgreSQL-free half returns expected failures as values: Status and Result<T>. Exceptions are only
// std::bad_alloc and those of an interrupted Waiter.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace prm {

// The kind of a failure: the server side chooses the SQLSTATE from it (src/pg/error.cpp).
enum class ErrorCode {
  kInvalidArgument,    // a setting, a pattern or an option is wrong
  kConnectionFailure,  // no connection, or it was lost
  kTimeout,            // the other side did not answer in time
  kAuthFailure,        // user name or password refused
  kPermissionDenied,   // NOPERM: a right is missing
  kUnavailable,        // LOADING, MASTERDOWN, ...: the same request may succeed later
  kMoved,              // MOVED, ASK: another node of the cluster serves the key
  kProtocol,           // the other side does not speak RESP
  kServerError,        // any other error reply of Redis
  kCorruptData,        // a payload whose bytes contradict each other
  kUnsupported,        // a type or version this release does not read
  kTooLarge,           // beyond a configured limit
  kLowMemory,          // Redis has too little memory left
};

// A failure: message in the style of PostgreSQL (lower case, no full stop), detail and hint as sentences.
// None of them may hold a secret.
struct Error {
  ErrorCode code;
  std::string message;
  std::string detail;
  std::string hint;
};

class [[nodiscard]] Status {
 public:
  Status() = default;                                // success
  Status(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by intent
  bool ok() const { return !error_.has_value(); }
  const Error& error() const { return error_.value(); }

 private:
  std::optional<Error> error_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : content_(std::move(value)) {}      // NOLINT: implicit by intent
  Result(Error error) : content_(std::move(error)) {}  // NOLINT: implicit by intent
  bool ok() const { return std::holds_alternative<T>(content_); }
  T& value() { return std::get<T>(content_); }
  const T& value() const { return std::get<T>(content_); }
  const Error& error() const { return std::get<Error>(content_); }

 private:
  std::variant<T, Error> content_;
};

}  // namespace prm

// Returns the error of a Status or Result expression from the enclosing function.
#define PRM_RETURN_IF_ERROR(expression)                                              \
  do {                                                                               \
    if (auto prm_status = (expression); !prm_status.ok()) return prm_status.error(); \
  } while (false)
