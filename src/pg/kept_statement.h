// Statements that are prepared once and run again and again, over transactions.
#pragma once

#include "pg/spi.h"
#include "pg/tuplestore.h"

namespace prm::pg {

class KeptStatement {
 public:
  enum class Planning {
    kAsUsual,
    // As if no table fitted into few pages, so that rows are looked up by indexes: a plan that was made while
    // a table was empty would read all of it for as long as it is kept.
    kByIndex,
  };

  explicit KeptStatement(std::string sql, Planning planning = Planning::kAsUsual)
      : sql_(std::move(sql)), planning_(planning) {}
  ~KeptStatement() { Forget(); }
  KeptStatement(const KeptStatement &) = delete;
  KeptStatement &operator=(const KeptStatement &) = delete;

  const std::string &sql() const { return sql_; }

  // Runs the statement, as Spi::Execute does. Prepares it at first; the types of the parameters are then
  // always the same, and what it reads by NamedRows always has the same columns. PostgreSQL locks what the
  // plan uses and makes it anew where that has changed; it never looks at the values of parameters. Errors:
  // those of the statement.
  Rows Execute(std::initializer_list<SqlParam> params = {}, bool read_only = false);

  // Executes it for rows that need not fit into memory: adds them to `rows`.
  void ExecuteInto(Tuplestore &rows, std::initializer_list<SqlParam> params = {});

 private:
  void MakeReady(std::initializer_list<SqlParam> params);
  void Prepare(std::initializer_list<SqlParam> params);
  void PlanByIndex();
  void Forget();

  std::string sql_;
  Planning planning_;
  SPIPlanPtr plan_ = nullptr;
  int by_index_ = 0;  // the generation of the plan that PlanByIndex made
};

}  // namespace prm::pg
