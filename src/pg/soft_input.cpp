#include "pg/soft_input.h"

#include "pg/entry.h"
#include "pg/memory.h"
#include "pg/transaction.h"

namespace prm::pg {
namespace {

struct InputFunction {
  FmgrInfo function;
  Oid ioparam;
};

// Looked up at each call: the type cache of fmgr is a syscache hit away.
void Lookup(Oid type, InputFunction *input) {
  Oid function;
  getTypeInputInfo(type, &function, &input->ioparam);
  fmgr_info(function, &input->function);
}

bool IsDataError(int sqlstate) {
  int category = ERRCODE_TO_CATEGORY(sqlstate);
  return category == ERRCODE_DATA_EXCEPTION || category == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
         category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION;
}

}  // namespace

Datum Input(Oid type, Bytes text) {
  return Call([&] {
    InputFunction input;
    Lookup(type, &input);
    char *copy = pnstrdup(text.data(), text.size());
    Datum value = InputFunctionCall(&input.function, copy, input.ioparam, -1);
    pfree(copy);
    return value;
  });
}

bool TryInput(Oid type, Bytes text, Datum *value, std::string *message) {
  if constexpr (kHasSoftErrors) {
    char *error = nullptr;
    bool good = Call([&] {
      InputFunction input;
      Lookup(type, &input);
      return InputSoftly(&input.function, pnstrdup(text.data(), text.size()), input.ioparam, -1, value, &error);
    });
    if (!good) *message = error;
    return good;
  } else {
    try {
      InSubtransaction([&] { *value = Input(type, text); });
      return true;
    } catch (const PgError &error) {
      if (!IsDataError(error.sqlstate())) throw;
      *message = error.what();
      return false;
    }
  }
}

}  // namespace prm::pg

// redis_migrate.input_is_valid(value text, type regtype): whether text is a value of the type. NULL gives NULL.
PRM_FUNCTION(input_is_valid) {
  using namespace prm::pg;
  Datum value;
  std::string message;
  PG_RETURN_BOOL(TryInput(PG_GETARG_OID(1), std::string(DatumBytes(PG_GETARG_DATUM(0))), &value, &message));
}
