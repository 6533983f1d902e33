// Errors on their way between C++ and PostgreSQL.
//
//   PostgreSQL error --(Call, guard.h)--> PgError --(Guarded entry, entry.h)--> the same error again
//   Failure, std::exception ------------------------(entry)------------------> ereport(ERROR)
#pragma once

#include "core/status.h"
#include "pg/pg.h"

namespace prm::pg {

// An error that PostgreSQL raised, kept whole (SQLSTATE, detail, hint, position) while C++ frames unwind.
class PgError : public std::exception {
 public:
  // data: in a memory context of its own, which goes with the error.
  explicit PgError(ErrorData *data) : data_(std::make_shared<Holder>(data)) {}
  const char *what() const noexcept override { return data()->message ? data()->message : "unknown error"; }
  ErrorData *data() const noexcept { return data_->data; }
  int sqlstate() const noexcept { return data()->sqlerrcode; }
  // Replaces the message; SQLSTATE, detail, hint and context stay. So for detail and hint.
  void SetMessage(const std::string &message) { data()->message = Keep(message); }
  void SetDetail(const std::string &detail) { data()->detail = Keep(detail); }
  void SetHint(const std::string &hint) { data()->hint = Keep(hint); }
  // Hands the error over to the entry barrier, which raises it again.
  ErrorData *Release() noexcept { return std::exchange(data_->data, nullptr); }

 private:
  struct Holder {
    ErrorData *data;
    explicit Holder(ErrorData *d) : data(d) {}
    Holder(const Holder &) = delete;
    Holder &operator=(const Holder &) = delete;
    ~Holder() {
      // FreeErrorData leaves the names of file, function and domain, which CopyErrorData copies.
      if (data != nullptr) MemoryContextDelete(data->assoc_context);
    }
  };
  char *Keep(const std::string &text) const;

  std::shared_ptr<Holder> data_;
};

// An error that this extension raises from C++ code.
class Failure : public std::exception {
 public:
  Failure(int sqlstate, std::string message, std::string detail = {}, std::string hint = {})
      : sqlstate_(sqlstate),
        message_(std::move(message)),
        detail_(std::move(detail)),
        hint_(std::move(hint)) {}
  // The SQLSTATE of a failure of the PostgreSQL-free half.
  explicit Failure(const Error &error)
      : Failure(SqlState(error.code), error.message, error.detail, error.hint) {}
  const char *what() const noexcept override { return message_.c_str(); }
  int sqlstate() const noexcept { return sqlstate_; }
  const std::string &message() const noexcept { return message_; }
  const std::string &detail() const noexcept { return detail_; }
  const std::string &hint() const noexcept { return hint_; }

  static int SqlState(ErrorCode code) noexcept;

 private:
  int sqlstate_;
  std::string message_;
  std::string detail_;
  std::string hint_;
};

// Throws the error of a Status or Result as a Failure.
template <typename StatusOrResult>
void ThrowIfError(const StatusOrResult &outcome) {
  if (!outcome.ok()) throw Failure(outcome.error());
}
template <typename T>
T ValueOrThrow(Result<T> result) {
  if (!result.ok()) throw Failure(result.error());
  return std::move(result.value());
}

// An error as a value, to be recorded after its exception has been handled.
struct Problem {
  int sqlstate = 0;
  std::string message;

  std::string SqlState() const;  // "" for none
  bool cancelled() const { return sqlstate == ERRCODE_QUERY_CANCELED; }
  bool out_of_memory() const { return sqlstate == ERRCODE_OUT_OF_MEMORY; }
  // Whether a retry may succeed, later or at once: no connection, a full server, a lock, a server that starts
  // or stops. Not 55000, which somebody has to do something about: a target of another owner.
  bool retryable() const;
};

// The exception that is being handled. Only inside a catch block.
Problem CurrentProblem();

// Whether the same statement may succeed at once in another transaction: a deadlock, a serialization failure,
// a lock that was not available.
bool IsTransient(int sqlstate);

// Whether a foreign key is violated. From PostgreSQL 18 on, ON DELETE RESTRICT has a SQLSTATE of its own.
bool IsForeignKeyViolation(int sqlstate);

// Where the fault is when a statement over rows fails.
enum class Fault {
  kRow,      // in a row: classes 21, 22, 23, 38, 44, 54, P0, and SQLSTATEs that PostgreSQL does not define
  kServer,   // in the server or the session: classes 08, 25, 40, 53, 57, 58, XX, and 55P03
  kUnclear,  // in a row or in the statement: everything else
};
Fault FaultOf(int sqlstate);

// Whether an error of a statement over rows costs the rows that raise it. It does not where it is the
// server's, or where the statement fails whatever the row. That is tried where the SQLSTATE does not tell:
// 42501 without rows, any other with single rows by themselves.
template <typename FailsWithoutRows, typename FailsForAnyRow>
bool CostsRows(int sqlstate, FailsWithoutRows fails_without_rows, FailsForAnyRow fails_for_any_row) {
  switch (FaultOf(sqlstate)) {
    case Fault::kRow:
      return true;
    case Fault::kServer:
      return false;
    case Fault::kUnclear:
      break;
  }
  return sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE ? !fails_without_rows() : !fails_for_any_row();
}

// "22P02" for ERRCODE_INVALID_TEXT_REPRESENTATION.
std::string SqlStateText(int sqlstate);
// The reverse; XX000 for an invalid SQLSTATE.
int SqlStateCode(const std::string &text);

}  // namespace prm::pg
