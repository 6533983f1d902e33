#include "pg/spi.h"

#include "pg/background.h"
#include "pg/kept_statement.h"
#include "pg/tuplestore.h"

namespace prm::pg {
namespace {

// make(item) gives the Datum of an item.
template <typename Items, typename Make>
SqlParam ArrayParam(Oid array_type, Oid element_type, const Items &items, Make make) {
  MemoryContext const target = CurrentMemoryContext;
  Context context("redis_migrate array");
  SwitchContext in_context(context.get());
  std::vector<Datum> elements;
  elements.reserve(items.size());
  for (const auto &item : items) elements.push_back(make(item));
  Datum *values = elements.data();
  int count = static_cast<int>(elements.size());
  return SqlParam::Owned(array_type, Call([&] {
                           int16 length;
                           bool by_value;
                           char align;
                           get_typlenbyvalalign(element_type, &length, &by_value, &align);
                           MemoryContextSwitchTo(target);
                           ArrayType *array =
                               construct_array(values, count, element_type, length, by_value, align);
                           MemoryContextSwitchTo(context.get());
                           return PointerGetDatum(array);
                         }));
}

// SPI leaves its own memory context as the current one, which lives as long as the connection: memory of a
// batch would stay until the CALL ends.
template <typename Body>
Rows Execute(Body body) {
  WithoutJit const without_jit;
  MemoryContext const context = CurrentMemoryContext;
  int code = Call([&] {
    int result = body();
    MemoryContextSwitchTo(context);
    return result;
  });
  if (code < 0)
    throw Failure(ERRCODE_INTERNAL_ERROR, std::string("SPI failed: ") + SPI_result_code_string(code));
  return Rows(std::exchange(SPI_tuptable, nullptr), SPI_processed);
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
  return Execute([&] {
    return SPI_execute_with_args(sql.c_str(), static_cast<int>(arguments.types.size()),
                                 arguments.types.data(), arguments.values.data(), arguments.nulls.c_str(),
                                 read_only, 0);
  });
}

}  // namespace

WithoutJit::WithoutJit() {
  if (!jit_enabled) return;
  guc_nest_ = Call([] {
    int const nest = NewGUCNestLevel();
    (void)set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
    return nest;
  });
}

WithoutJit::~WithoutJit() {
  if (guc_nest_ != 0 && !unwinds()) AtEOXact_GUC(true, guc_nest_);
}

SqlParam SqlParam::TextArray(const std::vector<std::string> &items) {
  return ArrayParam(TEXTARRAYOID, TEXTOID, items, [](const std::string &item) { return TextDatum(item); });
}

SqlParam SqlParam::OptionalTextArray(const std::optional<std::vector<std::string>> &items) {
  return items ? TextArray(*items) : SqlParam{TEXTARRAYOID, 0, true};
}

SqlParam SqlParam::Int8Array(const std::vector<int64> &items) {
  return ArrayParam(INT8ARRAYOID, INT8OID, items, [](int64 item) { return Int64GetDatum(item); });
}

SqlParam SqlParam::TimestampTzArray(const std::vector<int64> &items) {
  return ArrayParam(TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, items,
                    [](int64 item) { return TimestampTzGetDatum(item); });
}

SqlParam SqlParam::TidArray(const std::vector<ItemPointerData> &items) {
  return ArrayParam(TIDARRAYOID, TIDOID, items,
                    [](const ItemPointerData &item) { return PointerGetDatum(&item); });
}

SqlParam SqlParam::ByteaArray(const std::vector<Bytes> &items) {
  return ArrayParam(BYTEAARRAYOID, BYTEAOID, items, [](Bytes item) { return ByteaDatum(item); });
}

SqlParam SqlParam::Int4Array(const std::optional<std::vector<int>> &items) {
  if (!items) return {INT4ARRAYOID, 0, true};
  return ArrayParam(INT4ARRAYOID, INT4OID, *items, [](int item) { return Int32GetDatum(item); });
}

SqlParam SqlParam::OidArray(const List *items) {
  std::vector<Oid> oids;
  for (int i = 0; i < list_length(items); ++i) oids.push_back(list_nth_oid(items, i));
  return ArrayParam(OIDARRAYOID, OIDOID, oids, [](Oid item) { return ObjectIdGetDatum(item); });
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
  if (text == nullptr) return {};
  std::string result(text);
  pfree(text);
  return result;
}

std::optional<std::string> Row::OptionalText(int column) const {
  if (IsNull(column)) return std::nullopt;
  return Text(column);
}

std::vector<std::string> Row::TextArray(int column) const {
  std::vector<std::string> items;
  if (IsNull(column)) return items;
  Context context("redis_migrate array");
  SwitchContext in_context(context.get());
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
  Context context("redis_migrate array");
  SwitchContext in_context(context.get());
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

Rows::~Rows() {
  if (table_ == nullptr) return;
  if (std::uncaught_exceptions() == exceptions_)
    SPI_freetuptable(table_);
  else
    Spi::Leave(table_);
}

void RequireNonAtomic(FunctionCallInfo fcinfo, const char *why) {
  auto *context = reinterpret_cast<CallContext *>(fcinfo->context);
  if (context != nullptr && IsA(context, CallContext) && !context->atomic && !IsSubTransaction()) return;
  throw Failure(ERRCODE_INVALID_TRANSACTION_TERMINATION,
                std::string(why) + " and cannot run inside a transaction block", "",
                "CALL it on its own: without BEGIN, not with other statements in one psql -c, not from a "
                "function or a block with EXCEPTION; with autocommit in a driver.");
}

Spi *Spi::current_ = nullptr;

Spi::Spi(bool nonatomic) : outer_(current_) {
  bool const begins_anew = nonatomic && IsolationUsesXactSnapshot();
  if (begins_anew && TransactionIdIsValid(GetTopTransactionIdIfAny()))
    throw Failure(ERRCODE_ACTIVE_SQL_TRANSACTION,
                  "this procedure needs READ COMMITTED, and the transaction has written already",
                  "What it has written would be committed before the procedure begins.",
                  "COMMIT before the CALL, or SET default_transaction_isolation = 'read committed' before.");
  int code = Call([&] { return SPI_connect_ext(nonatomic ? SPI_OPT_NONATOMIC : 0); });
  if (code != SPI_OK_CONNECT) ThrowSpiFailure(code);
  if (begins_anew) Commit();
  current_ = this;
}

Spi::~Spi() {
  current_ = outer_;
  if (!unwinds()) SPI_finish();
}

void Spi::Leave(SPITupleTable *rows) noexcept {
  if (current_ == nullptr || rows->subid != TopSubTransactionId) return;
  try {
    current_->left_.push_back(rows);
  } catch (const std::bad_alloc &) {
    // They stay until the connection ends.
  }
}

Rows Spi::Execute(const std::string &sql, std::initializer_list<SqlParam> params, bool read_only) {
  return ExecuteWith(sql, params, read_only);
}

Rows Spi::Execute(const std::string &sql, const std::vector<SqlParam> &params, bool read_only) {
  return ExecuteWith(sql, params, read_only);
}

Rows Spi::Execute(SPIPlanPtr plan, std::initializer_list<SqlParam> params, bool read_only) {
  Arguments arguments(params);
  return pg::Execute(
      [&] { return SPI_execute_plan(plan, arguments.values.data(), arguments.nulls.c_str(), read_only, 0); });
}

void Spi::ExecuteInto(Tuplestore &rows, SPIPlanPtr plan, std::initializer_list<SqlParam> params) {
  Arguments arguments(params);
  (void)pg::Execute([&] {
    SPIExecuteOptions options = {};
    options.params = makeParamList(static_cast<int>(arguments.types.size()));
    for (size_t i = 0; i < arguments.types.size(); ++i)
      options.params->params[i] = {arguments.values[i], arguments.nulls[i] == 'n', PARAM_FLAG_CONST,
                                   arguments.types[i]};
    options.dest = CreateDestReceiver(DestTuplestore);
    // Detoasted: the rows that values come from may be gone when they are read.
    SetTuplestoreDestReceiverParams(options.dest, rows.get(), CurrentMemoryContext, true, nullptr, nullptr);
    int const code = SPI_execute_plan_extended(plan, &options);
    options.dest->rDestroy(options.dest);
    return code;
  });
}

Rows Spi::ExecuteKept(const std::string &sql, std::initializer_list<SqlParam> params, bool read_only) {
  static auto &statements = *new std::unordered_map<std::string, std::unique_ptr<KeptStatement>>();
  std::unique_ptr<KeptStatement> &statement = statements[sql];
  if (statement == nullptr)
    statement = std::make_unique<KeptStatement>(sql, KeptStatement::Planning::kByIndex);
  return statement->Execute(params, read_only);
}

void Spi::Commit() {
  Call([] { SPI_commit(); });
  // The report tells the transaction that it ends now.
  if (ReportStatistics()) Call([] { SPI_commit(); });
  // The next transaction must see commits of others: families that change hands, positions, rows of other
  // writers.
  XactIsoLevel = XACT_READ_COMMITTED;
}

void Spi::RollBack() {
  Call([] {
    // Functions that raised the error have left their atomic connections above ours. To end one switches to
    // the memory context in which it began, which goes with the statement that called the function.
    MemoryContext const context = CurrentMemoryContext;
    while (!SPI_inside_nonatomic_context())
      if (SPI_finish() < 0) break;
    MemoryContextSwitchTo(context);
    // An error in a statement or its planning leaves their snapshot pushed; SPI_rollback expects only those
    // of portals.
    Snapshot of_portal = ActivePortal != nullptr ? ActivePortal->portalSnapshot : nullptr;
    while (ActiveSnapshotSet() && GetActiveSnapshot() != of_portal) PopActiveSnapshot();
    SPI_rollback();
  });
  for (SPITupleTable *rows : std::exchange(current_->left_, {})) SPI_freetuptable(rows);
  XactIsoLevel = XACT_READ_COMMITTED;
}

}  // namespace prm::pg
