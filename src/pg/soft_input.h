// Text into values of any type.
#pragma once

#include "core/bytes.h"
#include "pg/guard.h"

namespace prm::pg {

// The input function of a type, looked up once. Values come in the current memory context; text has no zero
// bytes.
class InputFunction {
 public:
  explicit InputFunction(Oid type);

  // Errors: those of the type, usually class 22.
  Datum Convert(Bytes text);

  // For text that may be bad: false, with the type's message and SQLSTATE, for a bad value. Other errors are
  // thrown. Before PostgreSQL 16 it costs a subtransaction.
  bool TryConvert(Bytes text, Datum *value, std::string *message, int *sqlstate = nullptr);

 private:
  FmgrInfo function_;
  Oid ioparam_;
};

}  // namespace prm::pg
