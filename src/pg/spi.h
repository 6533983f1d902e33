// SQL from C++: a connection to the executor, statements with typed parameters, results read by column.
#pragma once

#include "pg/guard.h"
#include "pg/memory.h"
#include "pg/pg.h"
#include "pg/scope.h"

namespace prm::pg {

class Tuplestore;

// A parameter: its type, and its value unless NULL. A value that is allocated here is freed with the
// parameter and its copies, which must not outlive its memory context; a Datum that is passed in must stay
// valid during the call.
struct SqlParam {
  Oid type;
  Datum value;
  bool null;
  std::shared_ptr<void> memory = nullptr;

  static SqlParam Owned(Oid type, Datum value) {
    return {type, value, false, std::shared_ptr<void>(DatumGetPointer(value), pfree)};
  }
  static SqlParam Text(Bytes text) { return Owned(TEXTOID, TextDatum(text)); }
  static SqlParam OptionalText(const std::optional<std::string> &text) {
    return text ? Text(*text) : SqlParam{TEXTOID, 0, true};
  }
  static SqlParam Bytea(Bytes bytes) { return Owned(BYTEAOID, ByteaDatum(bytes)); }
  static SqlParam Int4(int32 value) { return {INT4OID, Int32GetDatum(value), false}; }
  static SqlParam OptionalInt4(const std::optional<int> &value) {
    return value ? Int4(*value) : SqlParam{INT4OID, 0, true};
  }
  static SqlParam Int8(int64 value) { return {INT8OID, Int64GetDatum(value), false}; }
  static SqlParam Bool(bool value) { return {BOOLOID, BoolGetDatum(value), false}; }
  static SqlParam OidOf(Oid value) { return {OIDOID, ObjectIdGetDatum(value), false}; }
  static SqlParam TextArray(const std::vector<std::string> &items);
  static SqlParam OptionalTextArray(const std::optional<std::vector<std::string>> &items);
  static SqlParam Int8Array(const std::vector<int64> &items);
  static SqlParam TimestampTzArray(const std::vector<int64> &items);
  static SqlParam ByteaArray(const std::vector<Bytes> &items);
  static SqlParam TidArray(const std::vector<ItemPointerData> &items);
  static SqlParam Int4Array(const std::optional<std::vector<int>> &items);
  static SqlParam OidArray(const List *items);
};

// For a scope: what is planned is not compiled. Most statements are about few rows, and the cost that the
// planner expects, with methods that we disable or many partitions, says nothing about them. Spi does so for
// all of its statements. As in a function with SET jit = off, a SET LOCAL of this setting ends with the
// scope; what else a statement sets in it stays.
class WithoutJit : Scope {
 public:
  WithoutJit();
  ~WithoutJit();

 private:
  int guc_nest_ = 0;  // 0: nothing had to be set
};

// One row of a result.
class Row {
 public:
  Row(HeapTuple tuple, TupleDesc desc) : tuple_(tuple), desc_(desc) {}
  bool IsNull(int column) const;  // columns count from 0
  Datum Value(int column) const;
  std::string Text(int column) const;  // a text-like column; "" for NULL
  std::optional<std::string> OptionalText(int column) const;
  int64 Int8(int column) const { return DatumGetInt64(Value(column)); }
  int32 Int4(int column) const { return DatumGetInt32(Value(column)); }
  bool Bool(int column) const { return DatumGetBool(Value(column)); }
  std::vector<std::string> TextArray(int column) const;
  std::optional<std::vector<int>> OptionalInt4Array(int column) const;

 private:
  HeapTuple tuple_;
  TupleDesc desc_;
};

// The rows of one statement; the destructor frees them.
class Rows {
 public:
  Rows(SPITupleTable *table, uint64 processed) : table_(table), processed_(processed) {}
  ~Rows();
  Rows(Rows &&other) noexcept
      : table_(std::exchange(other.table_, nullptr)),
        processed_(other.processed_),
        exceptions_(other.exceptions_) {}
  Rows &operator=(Rows &&other) noexcept {
    std::swap(table_, other.table_);
    std::swap(processed_, other.processed_);
    std::swap(exceptions_, other.exceptions_);
    return *this;
  }
  Rows(const Rows &) = delete;
  Rows &operator=(const Rows &) = delete;
  uint64 processed() const { return processed_; }
  uint64 size() const { return table_ != nullptr ? table_->numvals : 0; }
  Row operator[](uint64 index) const { return Row(table_->vals[index], table_->tupdesc); }

 private:
  SPITupleTable *table_;
  uint64 processed_;
  int exceptions_ = std::uncaught_exceptions();  // where it was made
};

// For a procedure that commits. `why` begins the message: "redis_migrate.run commits after each batch".
// Errors: 2D000 inside a transaction block, with how to call it instead.
void RequireNonAtomic(FunctionCallInfo fcinfo, const char *why);

// A connection to SPI for a scope; nonatomic allows Commit in a procedure, and commits a transaction that is
// not READ COMMITTED; 25001: it has written. After an exception the abort of the (sub)transaction cleans up.
class Spi : Scope {
 public:
  explicit Spi(bool nonatomic = false);
  ~Spi();

  // The innermost connection of this kind that is open.
  static Spi &Current() { return *current_; }
  // Takes rows that an exception leaves behind. The connections of functions that raised it may still be
  // above this one, and SPI frees only rows of the topmost: the abort of the subtransaction, the end of this
  // connection or RollBack frees them. Rows must not outlive the subtransaction that made them.
  static void Leave(SPITupleTable *rows) noexcept;
  // The ephemeral named relation that the connection's statements see.
  EphemeralNamedRelationData &relation(const char *name) { return relations_[name]; }

  // Runs one statement and returns its rows and the number of rows processed. All its memory is freed with
  // the rows. Errors are those of the statement.
  static Rows Execute(const std::string &sql, std::initializer_list<SqlParam> params = {},
                      bool read_only = false);
  static Rows Execute(const std::string &sql, const std::vector<SqlParam> &params, bool read_only = false);
  // Runs a prepared statement. read_only: it reads in the active snapshot.
  static Rows Execute(SPIPlanPtr plan, std::initializer_list<SqlParam> params, bool read_only = false);
  // Adds the rows of a prepared statement to `rows`.
  static void ExecuteInto(Tuplestore &rows, SPIPlanPtr plan, std::initializer_list<SqlParam> params);
  // As Execute, for a statement that this session runs again and again: it is a KeptStatement until the
  // session ends, planned by index. Use it only for a small, fixed number of different texts and parameter
  // types.
  static Rows ExecuteKept(const std::string &sql, std::initializer_list<SqlParam> params,
                          bool read_only = false);
  // Commits; the next transaction is READ COMMITTED, whatever the session's default.
  static void Commit();
  // Rolls back after any error, and begins a new READ COMMITTED transaction on the same connection, which
  // must be nonatomic.
  static void RollBack();

 private:
  static Spi *current_;

  Spi *const outer_;
  std::vector<SPITupleTable *> left_;  // those of no subtransaction
  std::map<std::string, EphemeralNamedRelationData> relations_;
};

}  // namespace prm::pg
