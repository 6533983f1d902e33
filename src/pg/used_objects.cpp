#include "pg/used_objects.h"

#include "pg/error.h"
#include "pg/guard.h"

namespace prm::pg {

namespace {

void AddType(Oid type, UsedObjects *used) {
  if (type >= FirstNormalObjectId) used->types = list_append_unique_oid(used->types, type);
}

bool AddFunction(Oid function, void *context) {
  auto *used = static_cast<UsedObjects *>(context);
  if (function >= FirstNormalObjectId) used->functions = list_append_unique_oid(used->functions, function);
  return false;
}

// Column definition lists make values of types that no expression names.
void AddColumnTypes(List *types, UsedObjects *used) {
  for (int i = 0; i < list_length(types); ++i) AddType(list_nth_oid(types, i), used);
}

bool Walk(Node *node, void *context) {
  if (node == nullptr) return false;
  auto *used = static_cast<UsedObjects *>(context);
  if (IsA(node, Query)) return query_tree_walker(reinterpret_cast<Query *>(node), Walk, context, 0);
  (void)check_functions_in_node(node, AddFunction, context);
  switch (nodeTag(node)) {
    case T_Const:
    case T_FuncExpr:
    case T_RelabelType:
    case T_CoerceViaIO:
    case T_ArrayCoerceExpr:
    case T_CoerceToDomain:
    case T_RowExpr:
      AddType(exprType(node), used);
      break;
    case T_RangeTblFunction:
      AddColumnTypes(reinterpret_cast<RangeTblFunction *>(node)->funccoltypes, used);
      break;
    case T_TableFunc:
      AddColumnTypes(reinterpret_cast<TableFunc *>(node)->coltypes, used);
      break;
    default:
      if (IsJsonExpression(node)) AddType(exprType(node), used);
  }
  return expression_tree_walker(node, Walk, context);
}

}  // namespace

// The functions are those of the query rather than of a plan, because the planner may have run some already.
void UsedObjects::Add(Query *query) {
  Call([&] {
    List *all = NIL, *more = NIL;
    bool has_row_security;
    extract_query_dependencies(reinterpret_cast<Node *>(query), &all, &more, &has_row_security);
    relations = list_concat_unique_oid(relations, all);
    items = list_concat(items, more);
    (void)Walk(reinterpret_cast<Node *>(query), this);
  });
}

void UsedObjects::Add(const std::string &sql, std::initializer_list<Oid> parameters) {
  std::vector<Oid> parameter_types(parameters);
  SPIPlanPtr const plan = Call([&] {
    MemoryContext const context = CurrentMemoryContext;
    SPIPlanPtr prepared =
        SPI_prepare(sql.c_str(), static_cast<int>(parameter_types.size()), parameter_types.data());
    MemoryContextSwitchTo(context);
    return prepared;
  });
  if (plan == nullptr)
    throw Failure(ERRCODE_INTERNAL_ERROR, std::string("SPI failed: ") + SPI_result_code_string(SPI_result));
  auto *source = static_cast<CachedPlanSource *>(linitial(SPI_plan_get_plan_sources(plan)));
  for (int i = 0; i < list_length(source->query_list); ++i)
    Add(static_cast<Query *>(list_nth(source->query_list, i)));
  Call([&] { SPI_freeplan(plan); });
}

}  // namespace prm::pg
