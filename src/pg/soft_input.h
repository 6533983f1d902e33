// Input of values of any type.
#pragma once

#include "core/bytes.h"
#include "pg/guard.h"

namespace prm::pg {

// Whether the error of an input function is about the text. Before PostgreSQL 16 a Unicode escape of JSON in
// a database with SQL_ASCII is a feature that is not supported.
bool IsBadInput(int sqlstate);

// The input function of a type, looked up once. Values are allocated in the current memory context; text has
// no zero bytes.
class InputFunction {
 public:
  explicit InputFunction(Oid type);

  // Errors: those of the type, usually class 22.
  Datum Convert(Bytes text);

  // For text that may be invalid: returns false, with the type's message and SQLSTATE, for an invalid value.
  // Throws other errors. Before PostgreSQL 16 it costs a subtransaction, except for types that OnlyComputes
  // knows.
  bool TryConvert(Bytes text, Datum *value, std::string *message, int *sqlstate = nullptr);

 private:
  bool OnlyComputes() const;

  FmgrInfo function_;
  Oid ioparam_;
};

}  // namespace prm::pg
