#include "pg/soft_input.h"

#include "pg/entry.h"
#include "pg/memory.h"
#include "pg/transaction.h"

namespace prm::pg {

bool IsBadInput(int sqlstate) {
  return FaultOf(sqlstate) == Fault::kRow || sqlstate == ERRCODE_FEATURE_NOT_SUPPORTED;
}

InputFunction::InputFunction(Oid type) {
  Call([&] {
    Oid function;
    getTypeInputInfo(type, &function, &ioparam_);
    fmgr_info(function, &function_);
  });
}

Datum InputFunction::Convert(Bytes text) {
  return Call([&] {
    char *copy = pnstrdup(text.data(), text.size());
    Datum value = InputFunctionCall(&function_, copy, ioparam_, -1);
    pfree(copy);
    return value;
  });
}

bool InputFunction::TryConvert(Bytes text, Datum *value, std::string *message, int *sqlstate) {
  if constexpr (kHasSoftErrors) {
    ErrorData *error = nullptr;
    bool good = Call([&] {
      return InputSoftly(&function_, pnstrdup(text.data(), text.size()), ioparam_, -1, value, &error);
    });
    if (!good) {
      *message = error->message;
      if (sqlstate != nullptr) *sqlstate = error->sqlerrcode;
      if (error->detail != nullptr) *message += std::string(": ") + error->detail;
    }
    return good;
  } else {
    try {
      InSubtransaction([&] { *value = Convert(text); });
      return true;
    } catch (const PgError &error) {
      if (!IsBadInput(error.sqlstate())) throw;
      *message = error.what();
      if (sqlstate != nullptr) *sqlstate = error.sqlstate();
      if (error.data()->detail != nullptr) *message += std::string(": ") + error.data()->detail;
      return false;
    }
  }
}

}  // namespace prm::pg

// redis_migrate.input_is_valid(value text, type regtype): whether text is a value of the type. NULL gives
// NULL.
PRM_FUNCTION(input_is_valid) {
  using namespace prm::pg;
  Datum value;
  std::string message;
  InputFunction input(PG_GETARG_OID(1));
  PG_RETURN_BOOL(input.TryConvert(DatumBytes(PG_GETARG_DATUM(0)), &value, &message));
}
