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

// Whether the function takes no lock, buffer or file, so that its error leaves nothing behind but memory, and
// needs no subtransaction.
bool InputFunction::OnlyComputes() const {
  switch (function_.fn_oid) {
    case F_BOOLIN:
    case F_INT2IN:
    case F_INT4IN:
    case F_INT8IN:
    case F_FLOAT4IN:
    case F_FLOAT8IN:
    case F_NUMERIC_IN:
    case F_UUID_IN:
    case F_INET_IN:
    case F_CIDR_IN:
    case F_DATE_IN:
    case F_TIMESTAMP_IN:
    case F_TIMESTAMPTZ_IN:
    case F_JSON_IN:
    case F_JSONB_IN:
      return true;
    default:
      return false;
  }
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
      if (OnlyComputes())
        *value = Convert(text);
      else
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

namespace prm::pg {
namespace {

struct KeptInput {
  Oid type;
  InputFunction input;
};

// The input function of a type, kept for the calls of one statement.
InputFunction &KeptInputOf(FunctionCallInfo fcinfo, Oid type) {
  static_assert(std::is_trivially_destructible_v<KeptInput>, "freed as plain memory");
  auto *kept = static_cast<KeptInput *>(fcinfo->flinfo->fn_extra);
  if (kept == nullptr || kept->type != type) {
    SwitchContext in_context(fcinfo->flinfo->fn_mcxt);
    InputFunction const input(type);
    void *const space = Call([] { return palloc(sizeof(KeptInput)); });
    fcinfo->flinfo->fn_extra = kept = new (space) KeptInput{type, input};
  }
  return kept->input;
}

}  // namespace
}  // namespace prm::pg

// redis_migrate.input_is_valid(value text, type regtype): whether text is a value of the type. NULL gives
// NULL.
PRM_FUNCTION(input_is_valid) {
  using namespace prm::pg;
  Datum value;
  std::string message;
  InputFunction &input = KeptInputOf(fcinfo, PG_GETARG_OID(1));
  PG_RETURN_BOOL(input.TryConvert(DatumBytes(PG_GETARG_DATUM(0)), &value, &message));
}
