// How a query is analysed: parsed with the number of its entry behind its columns, and coerced to the target.
#include "mapping/entry_check.h"
#include "mapping/mapping_query.h"
#include "mapping/named_fields.h"

namespace prm {

using pg::Call;
using pg::Failure;

namespace {

constexpr char kEntryColumn[] = "redis_entry";

// The name under which a FROM item shows redis_batch, if it is redis_batch.
std::optional<std::string> BatchAlias(Node *from) {
  if (IsA(from, RangeVar)) {
    auto *range = reinterpret_cast<RangeVar *>(from);
    if (range->schemaname != nullptr || std::string(range->relname) != kBatchName) return std::nullopt;
    return std::string(range->alias != nullptr ? range->alias->aliasname : range->relname);
  }
  if (IsA(from, JoinExpr)) {
    auto *join = reinterpret_cast<JoinExpr *>(from);
    if (join->alias != nullptr) return std::nullopt;
    std::optional<std::string> left = BatchAlias(join->larg);
    return left ? left : BatchAlias(join->rarg);
  }
  return std::nullopt;
}

// Adds "<alias>.entry AS redis_entry" behind the columns of every arm of the SELECT: rows must say which
// entry they come from. Behind, so that ORDER BY 1 keeps its meaning.
void PlaceEntry(SelectStmt *select, const std::string &mapping) {
  if (select->limitCount != nullptr || select->limitOffset != nullptr)
    RefuseQuery(ERRCODE_SYNTAX_ERROR, mapping, "must not have LIMIT or OFFSET",
                "The result would depend on where batches end. Use a window function PARTITION BY entry.");
  if (select->op != SETOP_NONE) {
    PlaceEntry(select->larg, mapping);
    PlaceEntry(select->rarg, mapping);
    return;
  }
  if (select->valuesLists != NIL || select->targetList == NIL)
    RefuseQuery(ERRCODE_SYNTAX_ERROR, mapping, "must select columns from redis_batch");
  std::string alias;
  for (int i = 0; i < list_length(select->fromClause) && alias.empty(); ++i)
    alias = BatchAlias(static_cast<Node *>(list_nth(select->fromClause, i))).value_or("");
  Call([&] {
    ColumnRef *entry = makeNode(ColumnRef);
    entry->fields = list_make1(makeString(pstrdup("entry")));
    if (!alias.empty()) entry->fields = lcons(makeString(pstrdup(alias.c_str())), entry->fields);
    entry->location = -1;
    ResTarget *column = makeNode(ResTarget);
    column->name = pstrdup(kEntryColumn);
    column->val = reinterpret_cast<Node *>(entry);
    column->location = -1;
    select->targetList = lappend(select->targetList, column);
  });
}

SelectStmt *ParseSelect(const std::string &text, const std::string &mapping) {
  List *statements = Call([&] { return raw_parser(text.c_str(), RAW_PARSE_DEFAULT); });
  if (list_length(statements) != 1) RefuseQuery(ERRCODE_SYNTAX_ERROR, mapping, "must be exactly one SELECT");
  Node *statement = static_cast<RawStmt *>(linitial(statements))->stmt;
  if (!IsA(statement, SelectStmt)) RefuseQuery(ERRCODE_SYNTAX_ERROR, mapping, "must be a SELECT");
  auto *select = reinterpret_cast<SelectStmt *>(statement);
  if (select->intoClause != nullptr || select->lockingClause != NIL)
    RefuseQuery(ERRCODE_SYNTAX_ERROR, mapping, "must not have INTO or FOR UPDATE");
  return select;
}

// Raises an error of PostgreSQL's parser again, about the user's query.
[[noreturn]] void ExplainParseError(const pg::PgError &error, const std::string &mapping,
                                    const std::string &text) {
  ErrorData *data = error.data();
  int position = data->cursorpos > 0 ? data->cursorpos : data->internalpos;
  if (position > 0) {
    // The position is one in the mapping's query, not in the statement that defines the mapping.
    data->cursorpos = 0;
    data->internalpos = position;
    data->internalquery = MemoryContextStrdup(GetMemoryChunkContext(data), text.c_str());
  } else {
    // Only the column that PlaceEntry added has no position.
    if (error.sqlstate() == ERRCODE_UNDEFINED_COLUMN || error.sqlstate() == ERRCODE_AMBIGUOUS_COLUMN)
      RefuseQuery(
          error.sqlstate(), mapping, "does not say which key a row comes from",
          "Select from redis_batch; let subqueries and WITH pass its column entry on, and join them USING "
          "(entry).",
          error.what());
    if (error.sqlstate() == ERRCODE_GROUPING_ERROR)
      RefuseQuery(ERRCODE_GROUPING_ERROR, mapping, "must GROUP BY entry wherever it aggregates redis_batch",
                  "Otherwise the result would depend on where batches end.");
  }
  throw error;
}

// Marks the columns of redis_batch that Vars refer to. Vars name their level relative to where they stand, so
// the walk keeps the levels above it, outermost first.
struct NeededWalk {
  List *levels;
  bool *needed;
  int count;
};

bool WalkNeeded(Node *node, void *context) {
  if (node == nullptr) return false;
  auto *walk = static_cast<NeededWalk *>(context);
  if (IsA(node, Query)) {
    walk->levels = lappend(walk->levels, node);
    bool result =
        query_tree_walker(reinterpret_cast<Query *>(node), WalkNeeded, context, QTW_IGNORE_JOINALIASES);
    walk->levels = list_delete_last(walk->levels);
    return result;
  }
  if (!IsA(node, Var)) return expression_tree_walker(node, WalkNeeded, context);
  auto *var = reinterpret_cast<Var *>(node);
  int depth = list_length(walk->levels) - 1 - static_cast<int>(var->varlevelsup);
  if (depth < 0) return false;
  auto *level = static_cast<Query *>(list_nth(walk->levels, depth));
  RangeTblEntry *rte = rt_fetch(var->varno, level->rtable);
  if (rte->rtekind == RTE_JOIN) {
    // The columns of a join are those of what it joins, at the join's own level.
    List *levels_here = walk->levels;
    walk->levels = list_copy_head(levels_here, depth + 1);
    for (int i = 0; i < list_length(rte->joinaliasvars); ++i)
      if (var->varattno <= 0 || i == var->varattno - 1)
        WalkNeeded(static_cast<Node *>(list_nth(rte->joinaliasvars, i)), context);
    walk->levels = levels_here;
  } else if (IsBatch(rte)) {
    for (int i = 0; i < walk->count; ++i)
      if (var->varattno <= 0 || i == var->varattno - 1) walk->needed[i] = true;
  }
  return false;
}

// The expression behind a Var of a join or of GROUP BY: those only rename columns.
Node *ThroughJoins(Query *query, Node *node) {
  while (node != nullptr && IsA(node, Var)) {
    auto *var = reinterpret_cast<Var *>(node);
    if (var->varlevelsup != 0 || var->varattno <= 0) break;
    Node *behind = pg::BehindColumn(rt_fetch(var->varno, query->rtable), var->varattno);
    if (behind == nullptr) break;
    node = behind;
  }
  return node;
}

// An output column of the query as INSERT would store it in a column.
Expr *Coerce(ParseState *pstate, TargetEntry *output, const TargetColumn &column) {
  return Call([&] {
    // A bare literal is coerced itself; anything else is a column of the subquery.
    Node *source = reinterpret_cast<Node *>(output->expr);
    bool literal = exprType(source) == UNKNOWNOID && IsA(source, Const);
    if (!literal)
      source = reinterpret_cast<Node *>(
          makeVar(1, output->resno, exprType(source), exprTypmod(source), exprCollation(source), 0));
    return transformAssignedExpr(pstate, reinterpret_cast<Expr *>(source), EXPR_KIND_INSERT_TARGET,
                                 column.name.c_str(), column.number, NIL, -1);
  });
}

}  // namespace

// Parses and analyses the text into query_. The parse state is that of the target, for coercing columns to
// its.
ParseState *MappingQuery::Parse(Relation relation) {
  SelectStmt *select = ParseSelect(text_, mapping_);
  PlaceEntry(select, mapping_);
  return Call([&] {
    ParseState *state = make_parsestate(nullptr);
    state->p_sourcetext = text_.c_str();
    state->p_queryEnv = environment_;
    // 'active' stays an untyped literal until it meets its column, as in INSERT … SELECT.
    state->p_resolve_unknowns = false;
    query_ = transformStmt(state, reinterpret_cast<Node *>(select));
    state->p_target_relation = relation;
    return state;
  });
}

void MappingQuery::Analyse(const Mapping &mapping, const BatchShape &shape, const Target &target) {
  text_ = mapping.query;
  Relation relation = Call([&] { return table_open(target.oid, AccessShareLock); });
  ParseState *pstate = nullptr;
  try {
    pstate = Parse(relation);
  } catch (const pg::PgError &error) {
    ExplainParseError(error, mapping.name, text_);
  }
  if (query_->hasModifyingCTE)
    RefuseQuery(ERRCODE_FEATURE_NOT_SUPPORTED, mapping.name, "must not modify data in WITH");
  std::vector<TargetEntry *> outputs;
  for (int i = 0; i < list_length(query_->targetList); ++i) {
    auto *output = static_cast<TargetEntry *>(list_nth(query_->targetList, i));
    if (!output->resjunk) outputs.push_back(output);
  }
  entry_ = outputs.back()->resno;
  outputs.pop_back();
  facts_.warnings = CheckPerEntry(query_, entry_, mapping.name);
  for (size_t i = 0; i < outputs.size(); ++i) {
    std::string name = outputs[i]->resname != nullptr ? outputs[i]->resname : "";
    const TargetColumn *column = target.Find(name);
    if (column == nullptr)
      throw Failure(ERRCODE_UNDEFINED_COLUMN,
                    "column \"" + name + "\" of relation " + target.name + " does not exist",
                    "Column " + std::to_string(i + 1) + " of the query of mapping \"" + mapping.name +
                        "\" has that name.",
                    "Name each output column after the column of the target that it fills, with AS.");
    if (column->generated)
      throw Failure(
          ERRCODE_GENERATED_ALWAYS, "column \"" + name + "\" of relation " + target.name + " is generated",
          "The query of mapping \"" + mapping.name + "\" fills it.", "Leave the column out of the query.");
    if (std::find(facts_.columns.begin(), facts_.columns.end(), column) != facts_.columns.end())
      throw Failure(
          ERRCODE_DUPLICATE_COLUMN,
          "column \"" + name + "\" is filled twice by the query of mapping \"" + mapping.name + "\"");
    facts_.columns.push_back(column);
    try {
      coerced_.push_back(Coerce(pstate, outputs[i], *column));
    } catch (const pg::PgError &error) {
      ErrorData *data = error.data();
      throw Failure(error.sqlstate(), error.what(),
                    "The query of mapping \"" + mapping.name + "\" fills it in " + target.name + ".",
                    data->hint != nullptr ? data->hint : "");
    }
  }
  if (coerced_.empty())
    RefuseQuery(ERRCODE_SYNTAX_ERROR, mapping.name, "must fill at least one column of " + target.name);
  for (const std::string &key : mapping.key_columns) {
    bool filled = false;
    for (const TargetColumn *column : facts_.columns) filled = filled || column->name == key;
    if (!filled)
      RefuseQuery(ERRCODE_INVALID_COLUMN_REFERENCE, mapping.name,
                  "does not fill key column \"" + key + "\" of " + target.name,
                  "Add it to the query's columns.");
  }
  row_desc_ = Call([&] {
    TupleDesc desc = CreateTemplateTupleDesc(static_cast<int>(facts_.columns.size()) + 2);
    TupleDescInitEntry(desc, 1, "redis_row", INT4OID, -1, 0);
    TupleDescInitEntry(desc, 2, kEntryColumn, INT4OID, -1, 0);
    for (size_t i = 0; i < facts_.columns.size(); ++i) {
      const TargetColumn *column = facts_.columns[i];
      auto const number = static_cast<AttrNumber>(i + 3);
      TupleDescInitEntry(desc, number, column->name.c_str(), column->type, column->typmod, 0);
      TupleDescInitEntryCollation(desc, number, column->collation);
    }
    TupleDescFinalize(desc);
    return desc;
  });
  Call([&] {
    pstate->p_target_relation = nullptr;
    free_parsestate(pstate);
    table_close(relation, NoLock);
  });
  FindNeeded(query_, shape);
  FindCopied(shape);
  FindRowByRow();
  ReplaceFields(mapping, shape);
}

// For values that all are hashes. A query that needs json as well reads its fields from that.
void MappingQuery::ReplaceFields(const Mapping &mapping, const BatchShape &shape) {
  const std::vector<BatchColumn> &columns = shape.columns();
  auto const found = std::find_if(columns.begin(), columns.end(),
                                  [](const BatchColumn &column) { return column.content == Content::kJson; });
  auto const json = static_cast<size_t>(found - columns.begin());
  if (shape.expand() != Expand::kNone || mapping.types != std::vector<std::string>{"hash"} ||
      !facts_.needed[json])
    return;
  std::optional<NamedFields> named =
      NameFields(query_, static_cast<int>(columns.size()), static_cast<AttrNumber>(json + 1));
  if (!named) return;
  std::vector<bool> const needed = facts_.needed;
  FindNeeded(named->query, shape);
  if (facts_.needed[json]) {
    facts_.needed = needed;
    return;
  }
  query_ = named->query;
  facts_.fields = std::move(named->fields);
  batch_.md.tupdesc = batch_desc_ = AddFieldColumns(batch_desc_, facts_.fields.size());
}

void MappingQuery::FindNeeded(Query *query, const BatchShape &shape) {
  int count = static_cast<int>(shape.columns().size());
  auto needed = std::make_unique<bool[]>(shape.columns().size());
  needed[0] = true;  // entry
  NeededWalk walk = {NIL, needed.get(), count};
  Call([&] { WalkNeeded(reinterpret_cast<Node *>(query), &walk); });
  facts_.needed.assign(needed.get(), needed.get() + count);
}

// An expression without casts that keep different values different: relabelling, and bigint to a narrower
// integer, which fails rather than folds.
Node *WithoutCast(Node *node) {
  for (;;) {
    if (node != nullptr && IsA(node, RelabelType)) {
      node = reinterpret_cast<Node *>(reinterpret_cast<RelabelType *>(node)->arg);
    } else if (node != nullptr && IsA(node, FuncExpr) &&
               (reinterpret_cast<FuncExpr *>(node)->funcid == F_INT4_INT8 ||
                reinterpret_cast<FuncExpr *>(node)->funcid == F_INT2_INT8)) {
      node = static_cast<Node *>(linitial(reinterpret_cast<FuncExpr *>(node)->args));
    } else {
      return node;
    }
  }
}

// Finds target columns that are plain copies of columns of redis_batch: they tell keys apart.
void MappingQuery::FindCopied(const BatchShape &shape) {
  if (query_->setOperations != nullptr) return;
  auto *entry_output = static_cast<TargetEntry *>(list_nth(query_->targetList, entry_ - 1));
  Node *entry = ThroughJoins(query_, reinterpret_cast<Node *>(entry_output->expr));
  if (entry == nullptr || !IsA(entry, Var)) return;
  int const batch = reinterpret_cast<Var *>(entry)->varno;
  for (size_t i = 0; i < coerced_.size(); ++i) {
    Node *node = WithoutCast(reinterpret_cast<Node *>(coerced_[i]));
    if (node == nullptr || !IsA(node, Var)) continue;
    auto *output =
        static_cast<TargetEntry *>(list_nth(query_->targetList, reinterpret_cast<Var *>(node)->varattno - 1));
    Node *source = WithoutCast(ThroughJoins(query_, reinterpret_cast<Node *>(output->expr)));
    if (source == nullptr || !IsA(source, Var)) continue;
    auto *var = reinterpret_cast<Var *>(source);
    // A second redis_batch beside it shows other keys.
    if (var->varlevelsup != 0 || var->varattno <= 0 || var->varno != batch ||
        !IsBatch(rt_fetch(var->varno, query_->rtable)))
      continue;
    // Values that differ must differ for the target's type, too: citext or a collation may take them for
    // equal.
    const TargetColumn &column = *facts_.columns[i];
    bool narrower = var->vartype == INT8OID && (column.type == INT4OID || column.type == INT2OID);
    bool same_type =
        column.type == var->vartype || narrower || (column.type == VARCHAROID && var->vartype == TEXTOID);
    bool rounds = column.type == NUMERICOID && column.typmod >= 0;
    if (same_type && !rounds && Call([&] {
          return !OidIsValid(column.collation) || get_collation_isdeterministic(column.collation);
        }))
      facts_.copied[shape.columns()[var->varattno - 1].name] = column.name;
  }
}

// Only of a query that selects from redis_batch once, at the top, does one know that.
void MappingQuery::FindRowByRow() {
  if (query_->hasAggs || query_->hasWindowFuncs || query_->groupClause != NIL ||
      query_->groupingSets != NIL || query_->havingQual != nullptr || query_->distinctClause != NIL)
    return;
  const FromExpr *from = query_->jointree;
  bool const is_from_batch =
      list_length(from->fromlist) == 1 && IsA(linitial(from->fromlist), RangeTblRef) &&
      static_cast<RangeTblEntry *>(
          list_nth(query_->rtable, static_cast<RangeTblRef *>(linitial(from->fromlist))->rtindex - 1))
              ->rtekind == RTE_NAMEDTUPLESTORE;
  // A column that is a copy of one of redis_batch shows that this is at the top, too.
  facts_.is_row_by_row =
      (is_from_batch || !facts_.copied.empty()) && Call([&] { return CountBatches(query_); }) == 1;
  facts_.yields_each =
      facts_.is_row_by_row && is_from_batch && !query_->hasTargetSRFs && from->quals == nullptr;
}

Query *MappingQuery::QueryFor(const std::vector<int> &columns) const {
  return Call([&] {
    Query *outer = makeNode(Query);
    outer->commandType = CMD_SELECT;
    outer->querySource = QSRC_ORIGINAL;
    outer->canSetTag = true;
    ParseState *pstate = make_parsestate(nullptr);
    Query *inner = static_cast<Query *>(copyObjectImpl(query_));
    addRangeTableEntryForSubquery(pstate, inner, makeAlias("redis_query", NIL), false, true);
    RangeTblRef *reference = makeNode(RangeTblRef);
    reference->rtindex = 1;
    outer->rtable = pstate->p_rtable;
    pg::TakePermissions(outer, pstate);
    outer->jointree = makeFromExpr(list_make1(reference), nullptr);
    Expr *entry = reinterpret_cast<Expr *>(makeVar(1, entry_, INT4OID, -1, InvalidOid, 0));
    outer->targetList = list_make1(makeTargetEntry(entry, 1, pstrdup(kEntryColumn), false));
    for (size_t i = 0; i < columns.size(); ++i) {
      Expr *expression = static_cast<Expr *>(copyObjectImpl(coerced_[columns[i]]));
      outer->targetList =
          lappend(outer->targetList,
                  makeTargetEntry(expression, static_cast<AttrNumber>(i + 2), pstrdup("column"), false));
      outer->hasSubLinks = outer->hasSubLinks || checkExprHasSubLink(reinterpret_cast<Node *>(expression));
    }
    return static_cast<Query *>(linitial(QueryRewrite(outer)));
  });
}

}  // namespace prm
