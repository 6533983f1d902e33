// Text into values of any type.
#pragma once

#include "core/bytes.h"
#include "pg/guard.h"

namespace prm::pg {

// Calls the input function of `type` on text without zero bytes, in the current memory context.
// Errors: those of the type, usually class 22.
Datum Input(Oid type, Bytes text);

// The same for text that may be bad: false, with the type's message, for a bad value. Other errors are thrown.
// Before PostgreSQL 16 it costs a subtransaction.
bool TryInput(Oid type, Bytes text, Datum *value, std::string *message);

}  // namespace prm::pg
