#include "mapping/target.h"

#include "pg/guard.h"
#include "pg/memory.h"

namespace prm {

using pg::Call;
using pg::Failure;

const TargetColumn *Target::Find(const std::string &column) const {
  for (const TargetColumn &candidate : columns)
    if (candidate.name == column) return &candidate;
  return nullptr;
}

std::string QualifiedName(Oid relation) {
  const char *name = Call([&] {
    char *own = get_rel_name(relation);
    return own == nullptr ? nullptr
                          : const_cast<const char *>(quote_qualified_identifier(
                                get_namespace_name(get_rel_namespace(relation)), own));
  });
  if (name == nullptr)
    throw Failure(ERRCODE_UNDEFINED_TABLE,
                  "relation with OID " + std::to_string(relation) + " does not exist");
  return name;
}

Target LoadTarget(const std::string &name, const std::string &mapping) {
  Target target;
  target.name = name;
  target.oid = Call([&] {
    List *parts = stringToQualifiedNameList(name.c_str(), nullptr);
    return RangeVarGetRelid(makeRangeVarFromNameList(parts), AccessShareLock, true);
  });
  if (!OidIsValid(target.oid))
    throw Failure(ERRCODE_UNDEFINED_TABLE,
                  "target " + name + " of mapping \"" + mapping + "\" does not exist", "",
                  "Create it, or change the mapping with redis_migrate.alter_mapping.");
  Relation relation = Call([&] { return relation_open(target.oid, AccessShareLock); });
  char kind = relation->rd_rel->relkind;
  TupleDesc desc = RelationGetDescr(relation);
  for (int i = 0; i < desc->natts; ++i) {
    Form_pg_attribute attribute = TupleDescAttr(desc, i);
    if (attribute->attisdropped) continue;
    target.columns.push_back({NameStr(attribute->attname), attribute->attnum, attribute->atttypid,
                              attribute->atttypmod, attribute->attcollation, attribute->attnotnull,
                              attribute->attgenerated != '\0',
                              attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS});
  }
  Call([&] { relation_close(relation, AccessShareLock); });
  if (kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE)
    target.kind = TargetKind::kLocal;
  else if (kind == RELKIND_FOREIGN_TABLE || kind == RELKIND_VIEW)
    target.kind = TargetKind::kRemote;
  else
    throw Failure(ERRCODE_WRONG_OBJECT_TYPE,
                  name + " is not a table, partitioned table, foreign table or view");
  return target;
}

namespace {

std::string Join(const std::vector<std::string> &names) {
  std::string text;
  for (const std::string &name : names) text += (text.empty() ? "" : ", ") + pg::QuoteIdentifier(name);
  return text;
}

struct IndexFacts {
  bool usable;  // unique, valid, immediate, total and on plain columns
  bool nulls_not_distinct;
  std::set<AttrNumber> columns;
};

std::vector<IndexFacts> UniqueIndexes(Oid relation_oid) {
  std::vector<IndexFacts> indexes;
  Relation relation = Call([&] { return relation_open(relation_oid, AccessShareLock); });
  List *oids = Call([&] { return RelationGetIndexList(relation); });
  for (int i = 0; i < list_length(oids); ++i) {
    Oid oid = list_nth_oid(oids, i);
    Relation index = Call([&] { return index_open(oid, AccessShareLock); });
    Form_pg_index form = index->rd_index;
    IndexFacts facts;
    facts.usable =
        form->indisunique && form->indisvalid && form->indimmediate && Call([&] {
          return RelationGetIndexPredicate(index) == NIL && RelationGetIndexExpressions(index) == NIL;
        });
    facts.nulls_not_distinct = form->indnullsnotdistinct;
    for (int k = 0; k < form->indnkeyatts; ++k) facts.columns.insert(form->indkey.values[k]);
    Call([&] { index_close(index, AccessShareLock); });
    indexes.push_back(std::move(facts));
  }
  Call([&] { relation_close(relation, AccessShareLock); });
  return indexes;
}

}  // namespace

void CheckKeyColumns(const Target &target, const std::vector<std::string> &key_columns) {
  if (key_columns.empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                  "key_columns must name at least one column of " + target.name);
  std::set<AttrNumber> wanted;
  std::string nullable;
  for (const std::string &name : key_columns) {
    const TargetColumn *column = target.Find(name);
    if (column == nullptr)
      throw Failure(ERRCODE_UNDEFINED_COLUMN,
                    "key column \"" + name + "\" of relation " + target.name + " does not exist");
    if (!wanted.insert(column->number).second)
      throw Failure(ERRCODE_DUPLICATE_COLUMN, "key column \"" + name + "\" is named twice");
    if (!column->not_null && nullable.empty()) nullable = name;
  }
  if (target.kind != TargetKind::kLocal) return;
  bool covered = false;
  for (const IndexFacts &index : UniqueIndexes(target.oid)) {
    if (!index.usable || index.columns != wanted) continue;
    covered = true;
    if (nullable.empty() || index.nulls_not_distinct) return;
  }
  if (!covered)
    throw Failure(ERRCODE_INVALID_COLUMN_REFERENCE,
                  "no unique index of " + target.name + " matches key_columns (" + Join(key_columns) + ")",
                  "Without it the same key could be stored twice. Partial, deferrable and expression indexes "
                  "do not count.",
                  "CREATE UNIQUE INDEX ON " + target.name + " (" + Join(key_columns) + ");");
  throw Failure(ERRCODE_INVALID_COLUMN_REFERENCE,
                "key column \"" + nullable + "\" of " + target.name +
                    " can be NULL, and its unique index takes any number of NULLs",
                "Rows with NULL could be stored twice.",
                "ALTER TABLE " + target.name + " ALTER " + pg::QuoteIdentifier(nullable) +
                    " SET NOT NULL, or make the index NULLS NOT DISTINCT.");
}

}  // namespace prm
