// A mapping's query: analysed against redis_batch and the target, planned, and run into a tuplestore.
#pragma once

#include "mapping/batch_relation.h"
#include "mapping/catalog.h"
#include "mapping/row_projection.h"
#include "mapping/row_receiver.h"
#include "mapping/target.h"
#include "pg/catalog_watch.h"
#include "pg/tuplestore.h"
#include "pg/used_objects.h"

namespace prm {

// The facts of a query's analysis, independent of any data.
struct QueryFacts {
  std::vector<const TargetColumn *> columns;  // that the query fills, in its order
  std::vector<bool> needed;                   // columns of redis_batch that it reads
  std::vector<std::string> fields;            // of hashes, which it reads from columns behind those
  std::vector<std::string> warnings;          // volatile functions, now()
  // Columns of redis_batch whose value stands unchanged in a target column, with the name of that column.
  std::map<std::string, std::string> copied;
  // Each of its rows comes from one row of redis_batch, whatever the others are; and each row of redis_batch
  // yields exactly one.
  bool is_row_by_row = false;
  bool yields_each = false;
};

// Analysed and planned once, and kept for as long as IsCurrent says: locks end with the transaction, memory
// does not.
class MappingQuery {
 public:
  // Errors, each naming column and table: 42601 not exactly one SELECT, LIMIT, 42703 a column that the target
  // lacks, 42804 a type that does not fit, 428C9 a generated column, 42803 a query that does not work per
  // entry, 42P10 entry computed or made NULL, those of PostgreSQL's own analysis, and 55000 for code of roles
  // that the mapping's owner has to confirm, in its query, its checks or its SET lists. Locks as a SELECT
  // takes them. Needs SPI.
  MappingQuery(const Mapping &mapping, const BatchShape &shape, const Target &target);
  ~MappingQuery();
  MappingQuery(const MappingQuery &) = delete;
  MappingQuery &operator=(const MappingQuery &) = delete;

  // Locks the relations of the plan until the end of the transaction, as a SELECT does. In a transaction
  // other than the first, Lock and IsCurrent come before the rest.
  void Lock() const;
  // Adds what the query was made from to a watch that began before it was made.
  void AddTo(pg::CatalogWatch &watch) const;
  // Whether the query, if the catalogs are the same, would be analysed and planned alike now: role,
  // row_security and search_path are the same. Also false if a relation that it reads has doubled since,
  // because the plan may no longer suit it.
  bool IsCurrent() const;

  const QueryFacts &facts() const { return facts_; }
  // What the query uses; of a superuser's mapping, also what its checks and SET lists use.
  const pg::UsedObjects &used() const { return used_; }
  TupleDesc batch_desc() const { return batch_desc_; }
  TupleDesc row_desc() const { return row_desc_; }

  // Runs the query over the batch, which shows entries of that many. Needs a snapshot. Errors: those of its
  // expressions.
  void Run(Tuplestorestate *batch, size_t entries, QueryRows &result);

  // Whether the query makes each of its rows from one row of redis_batch and reads nothing else.
  bool is_projection() const { return is_projection_; }
  // As Run, for such a query, over the rows that `fill` puts. Errors: also those of `fill`.
  void Project(size_t entries, QueryRows &result, const std::function<void(RowProjection &)> &fill);

  // Returns the column whose expression fails over this batch; empty if none does by itself. Each attempt
  // runs in a subtransaction of its own.
  std::string FindFailingColumn(Tuplestorestate *batch);

 private:
  Query *QueryFor(const std::vector<int> &columns) const;
  PlannedStmt *Plan(Query *query) const;
  void FindUsed(const Mapping &mapping, const Target &target, Query *query);
  void RunPlan(PlannedStmt *plan, Tuplestorestate *batch, DestReceiver *receiver);
  ParseState *Parse(Relation relation);
  void Analyse(const Mapping &mapping, const BatchShape &shape, const Target &target);
  void FindNeeded(Query *query, const BatchShape &shape);
  void FindCopied(const BatchShape &shape);
  void FindRowByRow();
  void ReplaceFields(const Mapping &mapping, const BatchShape &shape);

  struct Size {
    Oid relation;
    BlockNumber blocks;
  };

  pg::Context context_;
  std::string mapping_;
  std::string text_;
  Oid user_;
  bool row_security_;
  List *search_path_ = NIL;
  pg::UsedObjects used_;
  std::vector<Size> sizes_;  // of the relations that the plan reads
  EphemeralNamedRelationData batch_;
  QueryEnvironment *environment_ = nullptr;
  TupleDesc batch_desc_ = nullptr;
  TupleDesc row_desc_ = nullptr;
  Query *query_ = nullptr;       // the user's, with the entry number behind its columns
  AttrNumber entry_ = 0;         // the column with the entry number
  std::vector<Expr *> coerced_;  // its columns, coerced to the target's types
  PlannedStmt *plan_ = nullptr;
  bool is_projection_ = false;
  std::map<int, PlannedStmt *> column_plans_;
  QueryFacts facts_;
};

// Whether one of the key columns is an unchanged copy of that column of redis_batch.
bool IsAmongKeyColumns(const char *column, const Mapping &mapping, const QueryFacts &facts);

// As above, for the key itself, as text or bytes.
inline bool HasKeyAmongKeyColumns(const Mapping &mapping, const QueryFacts &facts) {
  return IsAmongKeyColumns("key", mapping, facts) || IsAmongKeyColumns("key_bytes", mapping, facts);
}

}  // namespace prm
