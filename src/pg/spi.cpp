#include "pg/spi.h"

namespace prm::pg {
namespace {

SqlParam ArrayParam(Oid array_type, Oid element_type, std::vector<Datum> &elements) {
  Datum *values = elements.data();
  int count = static_cast<int>(elements.size());
  Datum array = Call([&] {
    int16 length;
    bool by_value;
    char align;
    get_typlenbyvalalign(element_type, &length, &by_value, &align);
    return PointerGetDatum(construct_array(values, count, element_type, length, by_value, align));
  });
  return {array_type, array, false};
}

struct Arguments {
  std::vector<Oid> types;
  std::vector<Datum> values;
  std::string nulls;

  template <typename Params>
  explicit Arguments(const Params &params) {
    for (const SqlParam &param : params) {
      types.push_back(param.type);
      values.push_back(param.value);
      nulls.push_back(param.null ? 'n' : ' ');
    }
  }
};

[[noreturn]] void ThrowSpiFailure(int code) {
  throw Failure(ERRCODE_INTERNAL_ERROR, std::string("SPI failed: ") + SPI_result_code_string(code));
}

template <typename Params>
Rows ExecuteWith(const std::string &sql, const Params &params, bool read_only) {
  Arguments arguments(params);
  int code = Call([&] {
    return SPI_execute_with_args(sql.c_str(), static_cast<int>(arguments.types.size()),
                                 arguments.types.data(), arguments.values.data(), arguments.nulls.c_str(),
                                 read_only, 0);
  });
  if (code < 0) ThrowSpiFailure(code);
  return Rows(std::exchange(SPI_tuptable, nullptr), SPI_processed);
}

}  // namespace

SqlParam SqlParam::TextArray(const std::vector<std::string> &items) {
  std::vector<Datum> elements;
  for (const std::string &item : items) elements.push_back(TextDatum(item));
  return ArrayParam(TEXTARRAYOID, TEXTOID, elements);
}

SqlParam SqlParam::OptionalTextArray(const std::optional<std::vector<std::string>> &items) {
  return items ? TextArray(*items) : SqlParam{TEXTARRAYOID, 0, true};
}

SqlParam SqlParam::ByteaArray(const std::vector<Bytes> &items) {
  std::vector<Datum> elements;
  for (Bytes item : items) elements.push_back(ByteaDatum(item));
  return ArrayParam(BYTEAARRAYOID, BYTEAOID, elements);
}

SqlParam SqlParam::Int4Array(const std::optional<std::vector<int>> &items) {
  if (!items) return {INT4ARRAYOID, 0, true};
  std::vector<Datum> elements;
  for (int item : *items) elements.push_back(Int32GetDatum(item));
  return ArrayParam(INT4ARRAYOID, INT4OID, elements);
}

bool Row::IsNull(int column) const {
  bool null = true;
  SPI_getbinval(tuple_, desc_, column + 1, &null);
  return null;
}

Datum Row::Value(int column) const {
  bool null = true;
  return SPI_getbinval(tuple_, desc_, column + 1, &null);
}

std::string Row::Text(int column) const {
  char *text = Call([&] { return SPI_getvalue(tuple_, desc_, column + 1); });
  return text != nullptr ? std::string(text) : std::string();
}

std::optional<std::string> Row::OptionalText(int column) const {
  if (IsNull(column)) return std::nullopt;
  return Text(column);
}

std::vector<std::string> Row::TextArray(int column) const {
  std::vector<std::string> items;
  if (IsNull(column)) return items;
  Datum *elements = nullptr;
  int count = 0;
  Datum array = Value(column);
  Call([&] {
    deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, nullptr,
                      &count);
  });
  for (int i = 0; i < count; ++i) items.emplace_back(DatumBytes(elements[i]));
  return items;
}

std::optional<std::vector<int>> Row::OptionalInt4Array(int column) const {
  if (IsNull(column)) return std::nullopt;
  Datum *elements = nullptr;
  int count = 0;
  Datum array = Value(column);
  Call([&] {
    deconstruct_array(DatumGetArrayTypeP(array), INT4OID, 4, true, TYPALIGN_INT, &elements, nullptr, &count);
  });
  std::vector<int> items;
  for (int i = 0; i < count; ++i) items.push_back(DatumGetInt32(elements[i]));
  return items;
}

void RequireNonAtomic(FunctionCallInfo fcinfo, const char *why) {
  auto *context = reinterpret_cast<CallContext *>(fcinfo->context);
  if (context != nullptr && IsA(context, CallContext) && !context->atomic && !IsSubTransaction()) return;
  throw Failure(ERRCODE_INVALID_TRANSACTION_TERMINATION,
                std::string(why) + " and cannot run inside a transaction block", "",
                "CALL it on its own: without BEGIN, not with other statements in one psql -c, not from a "
                "function or a block with EXCEPTION; with autocommit in a driver.");
}

Spi::Spi(bool nonatomic) : exceptions_(std::uncaught_exceptions()) {
  int code = Call([&] { return SPI_connect_ext(nonatomic ? SPI_OPT_NONATOMIC : 0); });
  if (code != SPI_OK_CONNECT) ThrowSpiFailure(code);
}

Spi::~Spi() {
  if (std::uncaught_exceptions() == exceptions_) SPI_finish();
}

Rows Spi::Execute(const std::string &sql, std::initializer_list<SqlParam> params, bool read_only) {
  return ExecuteWith(sql, params, read_only);
}

Rows Spi::Execute(const std::string &sql, const std::vector<SqlParam> &params, bool read_only) {
  return ExecuteWith(sql, params, read_only);
}

Rows Spi::ExecuteKept(const std::string &sql, std::initializer_list<SqlParam> params) {
  static auto &plans = *new std::unordered_map<std::string, SPIPlanPtr>();
  Arguments arguments(params);
  SPIPlanPtr &plan = plans[sql];
  if (plan == nullptr) {
    SPIPlanPtr prepared = Call([&] {
      SPIPlanPtr made =
          SPI_prepare(sql.c_str(), static_cast<int>(arguments.types.size()), arguments.types.data());
      if (made != nullptr) SPI_keepplan(made);
      return made;
    });
    if (prepared == nullptr) ThrowSpiFailure(SPI_result);
    plan = prepared;
  }
  int code = Call(
      [&] { return SPI_execute_plan(plan, arguments.values.data(), arguments.nulls.c_str(), false, 0); });
  if (code < 0) ThrowSpiFailure(code);
  return Rows(std::exchange(SPI_tuptable, nullptr), SPI_processed);
}

void Spi::Commit() {
  Call([] { SPI_commit(); });
  // What meets a concurrent writer is tried again, which needs a new snapshot for each statement.
  XactIsoLevel = XACT_READ_COMMITTED;
}

}  // namespace prm::pg
