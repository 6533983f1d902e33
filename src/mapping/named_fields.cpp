#include "mapping/named_fields.h"

#include "mapping/entry_check.h"
#include "pg/memory.h"

namespace prm {

using pg::Call;

namespace {

// The functions below run inside pg::Call: plain C.

struct Replacing {
  Index batch;       // redis_batch in the topmost query
  AttrNumber json;   // its column
  AttrNumber first;  // the first column of a field
  int depth;         // of the query that the walk is in
  List *names;       // Const of type text
};

// The name in json->>'name' over redis_batch, and json; nullptr: it is another expression.
Const *NameIn(Node *node, const Replacing *replacing, Var **json) {
  if (!IsA(node, OpExpr)) return nullptr;
  auto *expression = reinterpret_cast<OpExpr *>(node);
  if (expression->opfuncid != F_JSONB_OBJECT_FIELD_TEXT) return nullptr;
  Node *from = static_cast<Node *>(linitial(expression->args));
  Node *name = static_cast<Node *>(lsecond(expression->args));
  if (!IsA(from, Var) || !IsA(name, Const)) return nullptr;
  Var *var = *json = reinterpret_cast<Var *>(from);
  auto *constant = reinterpret_cast<Const *>(name);
  bool const is_json = static_cast<int>(var->varlevelsup) == replacing->depth &&
                       static_cast<Index>(var->varno) == replacing->batch && var->varattno == replacing->json;
  return is_json && !constant->constisnull ? constant : nullptr;
}

Node *(*Untyped(Node *(*mutator)(Node *, void *)))() {
  return reinterpret_cast<Node *(*)()>(reinterpret_cast<void (*)(void)>(mutator));
}

Node *Replace(Node *node, void *context) {
  if (node == nullptr) return nullptr;
  auto *replacing = static_cast<Replacing *>(context);
  if (IsA(node, Query)) {
    ++replacing->depth;
    Node *query = reinterpret_cast<Node *>(
        query_tree_mutator(reinterpret_cast<Query *>(node), Untyped(Replace), context, 0));
    --replacing->depth;
    return query;
  }
  Var *json;
  Const *name = NameIn(node, replacing, &json);
  if (name == nullptr) return expression_tree_mutator(node, Untyped(Replace), context);
  int place = 0;
  while (place < list_length(replacing->names) && !equal(list_nth(replacing->names, place), name)) ++place;
  if (place == list_length(replacing->names)) replacing->names = lappend(replacing->names, name);
  // Everything else of it stays, such as the outer joins that may make it NULL.
  Var *field = static_cast<Var *>(copyObjectImpl(json));
  field->varattno = field->varattnosyn = static_cast<AttrNumber>(replacing->first + place);
  field->vartype = TEXTOID;
  field->vartypmod = -1;
  field->varcollid = exprCollation(node);
  return reinterpret_cast<Node *>(field);
}

// The range table entry of redis_batch if the query selects from it once, at the top; 0 otherwise.
Index FindBatch(Query *query) {
  if (CountBatches(query) != 1) return 0;
  for (int i = 1; i <= list_length(query->rtable); ++i)
    if (IsBatch(rt_fetch(i, query->rtable))) return static_cast<Index>(i);
  return 0;
}

void AddColumns(RangeTblEntry *batch, int count) {
  for (int i = 0; i < count; ++i) {
    batch->coltypes = lappend_oid(batch->coltypes, TEXTOID);
    batch->coltypmods = lappend_int(batch->coltypmods, -1);
    batch->colcollations = lappend_oid(batch->colcollations, DEFAULT_COLLATION_OID);
    batch->eref->colnames = lappend(batch->eref->colnames, makeString(pstrdup("")));
  }
}

}  // namespace

std::optional<NamedFields> NameFields(Query *query, int columns, AttrNumber json) {
  Replacing replacing = {Call([&] { return FindBatch(query); }), json, static_cast<AttrNumber>(columns + 1),
                         0, NIL};
  if (replacing.batch == 0) return std::nullopt;
  NamedFields named = {Call([&] {
                         auto *copy = static_cast<Query *>(copyObjectImpl(query));
                         copy = query_tree_mutator(copy, Untyped(Replace), &replacing, 0);
                         AddColumns(rt_fetch(replacing.batch, copy->rtable), list_length(replacing.names));
                         return copy;
                       }),
                       {}};
  for (int i = 0; i < list_length(replacing.names); ++i)
    named.fields.emplace_back(pg::DatumBytes(static_cast<Const *>(list_nth(replacing.names, i))->constvalue));
  if (named.fields.empty()) return std::nullopt;
  return named;
}

TupleDesc AddFieldColumns(TupleDesc batch, size_t fields) {
  return Call([&] {
    TupleDesc desc = CreateTemplateTupleDesc(batch->natts + static_cast<int>(fields));
    for (int i = 1; i <= batch->natts; ++i)
      TupleDescCopyEntry(desc, static_cast<AttrNumber>(i), batch, static_cast<AttrNumber>(i));
    for (int i = batch->natts + 1; i <= desc->natts; ++i)
      TupleDescInitEntry(desc, static_cast<AttrNumber>(i), "", TEXTOID, -1, 0);
    TupleDescFinalize(desc);
    return desc;
  });
}

}  // namespace prm
