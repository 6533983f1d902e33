#include "mapping/mapping_query.h"

#include "mapping/target_statements.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm {

using pg::Call;

namespace {

// The number of pages that the planner assumes for a table that has never been vacuumed.
constexpr BlockNumber kFewBlocks = 10;

// The size of a relation, which the caller has locked.
BlockNumber BlocksOf(Oid oid) {
  return Call([&] {
    Relation relation = relation_open(oid, NoLock);
    BlockNumber const blocks = RelationGetNumberOfBlocks(relation);
    relation_close(relation, NoLock);
    return blocks;
  });
}

}  // namespace

MappingQuery::MappingQuery(const Mapping &mapping, const BatchShape &shape, const Target &target)
    : context_("redis_migrate query", TopMemoryContext),
      mapping_(mapping.name),
      user_(GetUserId()),
      row_security_(row_security),
      batch_() {
  pg::SwitchContext in_context(context_.get());
  batch_desc_ = shape.MakeTupleDesc();
  batch_.md.name = const_cast<char *>(kBatchName);
  batch_.md.reliddesc = InvalidOid;
  batch_.md.tupdesc = batch_desc_;
  batch_.md.enrtype = ENR_NAMED_TUPLESTORE;
  batch_.md.enrtuples = pg::kEstimatedBatchRows;
  environment_ = Call([&] {
    QueryEnvironment *environment = create_queryEnv();
    register_ENR(environment, &batch_);
    return environment;
  });
  pg::SnapshotScope snapshot;  // constants are computed while they are analysed and planned
  Analyse(mapping, shape, target);
  std::vector<int> all(facts_.columns.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
  Query *query = QueryFor(all);
  FindUsed(mapping, target, query);
  plan_ = Plan(query);
  is_projection_ = RowProjection::Fits(plan_);
  search_path_ = Call([] { return fetch_search_path(true); });
  for (int i = 0; i < list_length(plan_->rtable); ++i) {
    auto *entry = static_cast<RangeTblEntry *>(list_nth(plan_->rtable, i));
    if (entry->rtekind == RTE_RELATION &&
        (entry->relkind == RELKIND_RELATION || entry->relkind == RELKIND_MATVIEW))
      sizes_.push_back({entry->relid, BlocksOf(entry->relid)});
  }
}

void MappingQuery::Lock() const {
  Call([&] {
    for (int i = 0; i < list_length(plan_->rtable); ++i) {
      auto *entry = static_cast<RangeTblEntry *>(list_nth(plan_->rtable, i));
      // A view that was expanded is a subquery that has kept its relation.
      if ((entry->rtekind == RTE_RELATION || entry->rtekind == RTE_SUBQUERY) && OidIsValid(entry->relid))
        LockRelationOid(entry->relid, entry->rellockmode);
    }
  });
}

void MappingQuery::AddTo(pg::CatalogWatch &watch) const {
  for (List *relations : {used_.relations, plan_->relationOids})
    for (int i = 0; i < list_length(relations); ++i) watch.AddRelation(list_nth_oid(relations, i));
  for (List *items : {used_.items, plan_->invalItems}) watch.AddItems(items);
  for (int i = 0; i < list_length(used_.types); ++i) watch.AddType(list_nth_oid(used_.types, i));
}

bool MappingQuery::IsCurrent() const {
  // A plan is transient if an index will be usable only later.
  if (plan_->transientPlan || user_ != GetUserId() || row_security_ != row_security) return false;
  bool const same_path = Call([&] {
    List *path = fetch_search_path(true);
    bool const same = equal(path, search_path_);
    list_free(path);
    return same;
  });
  return same_path && std::all_of(sizes_.begin(), sizes_.end(), [](const Size &size) {
           return BlocksOf(size.relation) <= 2 * std::max(size.blocks, kFewBlocks);
         });
}

MappingQuery::~MappingQuery() = default;

PlannedStmt *MappingQuery::Plan(Query *query) const {
  pg::WithoutJit const without_jit;
  return Call([&] { return pg_plan_query(query, text_.c_str(), 0, nullptr, nullptr); });
}

// The other texts of a mapping become part of statements that are prepared later. Its owner runs the code of
// all of them.
void MappingQuery::FindUsed(const Mapping &mapping, const Target &target, Query *query) {
  used_.Add(query);
  if (!mapping.accepted || !Call([] { return superuser(); })) return;
  pg::Tuplestore empty;
  pg::NamedRows named(kRowsName, row_desc_, empty.get());
  for (const Check &check : mapping.checks) used_.Add(CheckStatement(check.condition));
  bool const is_stored = !target.keys.empty();  // not for a check alone
  if (is_stored && !IsConflictKeyword(mapping.on_conflict))
    used_.Add(TargetStatements(mapping, target, facts_.columns).update);
  for (const std::string &action : {mapping.on_delete, mapping.on_expire.value_or("keep")})
    if (action != "delete" && action != "keep") used_.Add(DeleteStatement(target.name, action));
  CheckCode(mapping, used_);
}

void MappingQuery::RunPlan(PlannedStmt *plan, Tuplestorestate *batch, DestReceiver *receiver) {
  // After an error, too, nothing points at a batch that is gone.
  struct Shown {
    EphemeralNamedRelationData &relation;
    ~Shown() { relation.reldata = nullptr; }
  } const shown{batch_};
  batch_.reldata = batch;
  Call([&] {
    QueryDesc *query = CreateQueryDesc(plan, text_.c_str(), GetActiveSnapshot(), InvalidSnapshot, receiver,
                                       nullptr, environment_, 0);
    ExecutorStart(query, 0);
    ExecutorRun(query, ForwardScanDirection, 0);
    ExecutorFinish(query);
    ExecutorEnd(query);
    FreeQueryDesc(query);
  });
}

void MappingQuery::Run(Tuplestorestate *batch, size_t entries, QueryRows &result) {
  RowReceiver receiver(row_desc_, entries, result);
  RunPlan(plan_, batch, receiver.destination());
  receiver.Finish();
}

void MappingQuery::Project(size_t entries, QueryRows &result,
                           const std::function<void(RowProjection &)> &fill) {
  RowReceiver receiver(row_desc_, entries, result);
  RowProjection projection(plan_, batch_desc_, receiver.destination());
  fill(projection);
  projection.Finish();
  receiver.Finish();
}

std::string MappingQuery::FindFailingColumn(Tuplestorestate *batch) {
  std::string first;
  size_t failing = 0;
  for (size_t i = 0; i < facts_.columns.size(); ++i) {
    int column = static_cast<int>(i);
    PlannedStmt *&plan = column_plans_[column];
    if (plan == nullptr) {
      pg::SwitchContext in_context(context_.get());
      pg::SnapshotScope snapshot;
      plan = Plan(QueryFor({column}));
    }
    try {
      pg::InSubtransaction([&] {
        pg::SnapshotScope snapshot;
        RunPlan(plan, batch, None_Receiver);
      });
    } catch (const pg::PgError &error) {
      if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
      if (++failing == 1) first = facts_.columns[i]->name;
    }
  }
  // An error that comes whichever column is evaluated, as from a condition or a volatile function, is not the
  // fault of a column.
  return failing == facts_.columns.size() && failing > 1 ? "" : first;
}

bool IsAmongKeyColumns(const char *column, const Mapping &mapping, const QueryFacts &facts) {
  auto found = facts.copied.find(column);
  return found != facts.copied.end() && std::find(mapping.key_columns.begin(), mapping.key_columns.end(),
                                                  found->second) != mapping.key_columns.end();
}

}  // namespace prm
