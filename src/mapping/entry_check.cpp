#include "mapping/entry_check.h"

#include "mapping/batch_relation.h"
#include "pg/guard.h"

namespace prm {

using pg::Call;
using pg::Failure;

void RefuseQuery(int sqlstate, const std::string &mapping, const std::string &what, const std::string &hint,
                 const std::string &detail) {
  throw Failure(sqlstate, "query of mapping \"" + mapping + "\" " + what, detail, hint);
}

bool IsBatch(const RangeTblEntry *rte) {
  return rte->rtekind == RTE_NAMEDTUPLESTORE && strcmp(rte->enrname, kBatchName) == 0;
}

namespace {

bool WalkBatches(Node *node, void *count) {
  if (node == nullptr) return false;
  if (IsA(node, RangeTblEntry)) {
    if (IsBatch(reinterpret_cast<RangeTblEntry *>(node))) ++*static_cast<int *>(count);
    return false;
  }
  if (IsA(node, Query))
    return query_tree_walker(reinterpret_cast<Query *>(node), WalkBatches, count, QTW_EXAMINE_RTES_BEFORE);
  return expression_tree_walker(node, WalkBatches, count);
}

}  // namespace

int CountBatches(Query *query) {
  int count = 0;
  (void)WalkBatches(reinterpret_cast<Node *>(query), &count);
  return count;
}

namespace {

// The findings of one walk over a query. Plain data: the walk runs in C frames, below the guard.
struct Survey {
  List *above;    // the levels that the walk is in, outermost first
  List *chains;   // for every Query, this one and those below: the levels above it and itself
  bool uses_now;  // the query uses the current time
};

bool WalkSurvey(Node *node, void *context) {
  if (node == nullptr) return false;
  auto *survey = static_cast<Survey *>(context);
  if (IsA(node, Query)) {
    survey->above = lappend(survey->above, node);
    survey->chains = lappend(survey->chains, list_copy(survey->above));
    bool result =
        query_tree_walker(reinterpret_cast<Query *>(node), WalkSurvey, context, QTW_IGNORE_JOINALIASES);
    survey->above = list_delete_last(survey->above);
    return result;
  }
  if (IsA(node, SQLValueFunction))
    survey->uses_now =
        survey->uses_now || reinterpret_cast<SQLValueFunction *>(node)->op <= SVFOP_LOCALTIMESTAMP_N;
  if (IsA(node, FuncExpr)) {
    Oid function = reinterpret_cast<FuncExpr *>(node)->funcid;
    survey->uses_now = survey->uses_now || function == F_NOW || function == F_TRANSACTION_TIMESTAMP ||
                       function == F_STATEMENT_TIMESTAMP;
  }
  return expression_tree_walker(node, WalkSurvey, context);
}

// A query and those around it, outermost first: where an expression stands.
using Levels = std::vector<Query *>;

// The query that an entry of the innermost level's FROM reads, if that is a subquery or a WITH query; else
// none.
Levels Below(const Levels &levels, const RangeTblEntry *rte) {
  Levels below = levels;
  if (rte->rtekind == RTE_SUBQUERY) {
    below.push_back(rte->subquery);
    return below;
  }
  if (rte->rtekind != RTE_CTE || rte->self_reference || rte->ctelevelsup >= levels.size()) return {};
  below.resize(levels.size() - rte->ctelevelsup);
  List *with = below.back()->cteList;
  for (int i = 0; i < list_length(with); ++i) {
    auto *cte = static_cast<CommonTableExpr *>(list_nth(with, i));
    if (strcmp(cte->ctename, rte->ctename) != 0) continue;
    below.push_back(reinterpret_cast<Query *>(cte->ctequery));
    return below;
  }
  return {};
}

// Whether a FROM item shows redis_batch, directly or through subqueries.
bool ReadsBatch(const Levels &levels, const RangeTblEntry *rte) {
  if (IsBatch(rte)) return true;
  Levels below = Below(levels, rte);
  if (below.empty()) return false;
  for (int i = 0; i < list_length(below.back()->rtable); ++i)
    if (ReadsBatch(below, static_cast<RangeTblEntry *>(list_nth(below.back()->rtable, i)))) return true;
  return false;
}

// Whether an outer join can put NULLs in place of the columns of a FROM item.
bool IsOptional(Node *from, int item, bool optional) {
  if (IsA(from, RangeTblRef)) return optional && reinterpret_cast<RangeTblRef *>(from)->rtindex == item;
  if (IsA(from, JoinExpr)) {
    auto *join = reinterpret_cast<JoinExpr *>(from);
    return IsOptional(join->larg, item,
                      optional || join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL) ||
           IsOptional(join->rarg, item,
                      optional || join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL);
  }
  if (!IsA(from, FromExpr)) return false;
  List *items = reinterpret_cast<FromExpr *>(from)->fromlist;
  for (int i = 0; i < list_length(items); ++i)
    if (IsOptional(static_cast<Node *>(list_nth(items, i)), item, optional)) return true;
  return false;
}

bool OutputIsEntry(const Levels &levels, int column);

// Whether an expression is the column entry of redis_batch, passed on unchanged by joins, subqueries and
// WITH. With `or_null`, also if an outer join may have made it NULL.
bool IsEntry(Levels levels, Node *node, bool or_null = false) {
  if (node == nullptr || !IsA(node, Var)) return false;
  auto *var = reinterpret_cast<Var *>(node);
  if (var->varattno <= 0 || var->varlevelsup >= levels.size()) return false;
  levels.resize(levels.size() - var->varlevelsup);
  RangeTblEntry *rte = rt_fetch(var->varno, levels.back()->rtable);
  if (Node *behind = pg::BehindColumn(rte, var->varattno)) return IsEntry(levels, behind, or_null);
  if (!or_null && IsOptional(reinterpret_cast<Node *>(levels.back()->jointree), var->varno, false))
    return false;
  if (IsBatch(rte)) return var->varattno == 1;
  if (rte->rtekind == RTE_CTE && rte->self_reference)
    return true;  // the first arm of a recursive query decides
  Levels below = Below(levels, rte);
  return !below.empty() && OutputIsEntry(below, var->varattno);
}

bool ArmsAreEntry(const Levels &levels, Node *arms, int column) {
  if (IsA(arms, SetOperationStmt)) {
    auto *operation = reinterpret_cast<SetOperationStmt *>(arms);
    return ArmsAreEntry(levels, operation->larg, column) && ArmsAreEntry(levels, operation->rarg, column);
  }
  Levels arm = Below(levels, rt_fetch(reinterpret_cast<RangeTblRef *>(arms)->rtindex, levels.back()->rtable));
  return !arm.empty() && OutputIsEntry(arm, column);
}

// As above, for an output column of a query.
bool OutputIsEntry(const Levels &levels, int column) {
  Query *query = levels.back();
  if (query->setOperations != nullptr) return ArmsAreEntry(levels, query->setOperations, column);
  for (int i = 0; i < list_length(query->targetList); ++i) {
    auto *output = static_cast<TargetEntry *>(list_nth(query->targetList, i));
    if (output->resno == column) return IsEntry(levels, reinterpret_cast<Node *>(output->expr));
  }
  return false;
}

// How many conditions "entry = entry" hold for every row of a FROM item.
int CountEntryJoins(const Levels &levels, Node *node) {
  if (node == nullptr) return 0;
  int count = 0;
  if (IsA(node, FromExpr)) {
    auto *from = reinterpret_cast<FromExpr *>(node);
    for (int i = 0; i < list_length(from->fromlist); ++i)
      count += CountEntryJoins(levels, static_cast<Node *>(list_nth(from->fromlist, i)));
    return count + CountEntryJoins(levels, from->quals);
  }
  if (IsA(node, JoinExpr)) {
    auto *join = reinterpret_cast<JoinExpr *>(node);
    return CountEntryJoins(levels, join->larg) + CountEntryJoins(levels, join->rarg) +
           CountEntryJoins(levels, join->quals);
  }
  if (is_andclause(node)) {
    List *conditions = reinterpret_cast<BoolExpr *>(node)->args;
    for (int i = 0; i < list_length(conditions); ++i)
      count += CountEntryJoins(levels, static_cast<Node *>(list_nth(conditions, i)));
    return count;
  }
  if (!is_opclause(node) || reinterpret_cast<OpExpr *>(node)->opno != Int4EqualOperator) return 0;
  auto *left = static_cast<Node *>(linitial(reinterpret_cast<OpExpr *>(node)->args));
  auto *right = static_cast<Node *>(lsecond(reinterpret_cast<OpExpr *>(node)->args));
  return IsEntry(levels, left, true) && IsEntry(levels, right, true) && !equal(left, right) ? 1 : 0;
}

int CountBatches(const Levels &levels) {
  int count = 0;
  List *items = levels.back()->rtable;
  for (int i = 0; i < list_length(items); ++i)
    if (ReadsBatch(levels, static_cast<RangeTblEntry *>(list_nth(items, i)))) ++count;
  return count;
}

// Whether the innermost level is a sublink in an expression of the level around it, rather than part of its
// FROM or WITH.
bool IsSublink(const Levels &levels) {
  if (levels.size() < 2) return false;
  Query *around = levels[levels.size() - 2];
  for (int i = 0; i < list_length(around->rtable); ++i)
    if (static_cast<RangeTblEntry *>(list_nth(around->rtable, i))->subquery == levels.back()) return false;
  for (int i = 0; i < list_length(around->cteList); ++i)
    if (static_cast<CommonTableExpr *>(list_nth(around->cteList, i))->ctequery ==
        reinterpret_cast<Node *>(levels.back()))
      return false;
  return true;
}

// Whether everything that shows redis_batch at this level, and around it if it is a sublink, goes by one
// entry.
bool JoinsByEntry(const Levels &levels) {
  if (levels.back()->setOperations != nullptr) return true;
  int others = CountBatches(levels) - 1;
  if (IsSublink(levels) && CountBatches(Levels(levels.begin(), levels.end() - 1)) > 0) ++others;
  return others == 0 || CountEntryJoins(levels, reinterpret_cast<Node *>(levels.back()->jointree)) >= others;
}

}  // namespace

std::vector<std::string> CheckPerEntry(Query *query, AttrNumber entry, const std::string &mapping) {
  Survey survey = {NIL, NIL, false};
  Call([&] { WalkSurvey(reinterpret_cast<Node *>(query), &survey); });
  for (int n = 0; n < list_length(survey.chains); ++n) {
    auto *chain = static_cast<List *>(list_nth(survey.chains, n));
    Levels levels;
    for (int i = 0; i < list_length(chain); ++i) levels.push_back(static_cast<Query *>(list_nth(chain, i)));
    Query *level = levels.back();
    if (CountBatches(levels) == 0) continue;
    auto by_entry = [&](List *clauses) {
      for (int i = 0; i < list_length(clauses); ++i) {
        auto *clause = static_cast<SortGroupClause *>(list_nth(clauses, i));
        TargetEntry *output = get_sortgroupclause_tle(clause, level->targetList);
        if (IsEntry(levels, reinterpret_cast<Node *>(output->expr))) return true;
      }
      return false;
    };
    const char *hint = "Otherwise the result would depend on where batches end.";
    if ((level->hasAggs || level->groupClause != NIL || level->groupingSets != NIL) &&
        (level->groupingSets != NIL || !by_entry(level->groupClause)))
      RefuseQuery(ERRCODE_GROUPING_ERROR, mapping, "must GROUP BY entry wherever it aggregates redis_batch",
                  hint);
    if (level->distinctClause != NIL && !by_entry(level->distinctClause))
      RefuseQuery(ERRCODE_GROUPING_ERROR, mapping, "must include entry in DISTINCT", hint);
    for (int i = 0; level->hasWindowFuncs && i < list_length(level->windowClause); ++i)
      if (!by_entry(static_cast<WindowClause *>(list_nth(level->windowClause, i))->partitionClause))
        RefuseQuery(ERRCODE_WINDOWING_ERROR, mapping, "must PARTITION BY entry in its window clauses", hint);
    if (level->limitCount != nullptr || level->limitOffset != nullptr)
      RefuseQuery(ERRCODE_SYNTAX_ERROR, mapping, "must not have LIMIT or OFFSET over redis_batch", hint);
    if (!JoinsByEntry(levels))
      RefuseQuery(ERRCODE_INVALID_COLUMN_REFERENCE, mapping, "must join redis_batch with itself by entry",
                  hint);
  }
  if (!OutputIsEntry({query}, entry))
    RefuseQuery(ERRCODE_INVALID_COLUMN_REFERENCE, mapping, "must take entry from redis_batch unchanged",
                "Begin outer joins with redis_batch, and let subqueries and WITH pass its column entry on.",
                "entry says which key a row comes from: it must be neither computed nor NULL.");
  std::vector<std::string> warnings;
  if (Call([&] { return contain_volatile_functions(reinterpret_cast<Node *>(query)); }))
    warnings.push_back("The query calls a volatile function: a second run may change rows.");
  if (survey.uses_now) warnings.push_back("The query uses the current time: a second run may change rows.");
  return warnings;
}

}  // namespace prm
