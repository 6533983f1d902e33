#include "mapping/target.h"

#include "pg/guard.h"
#include "pg/memory.h"
#include "pg/plain_names.h"

namespace prm {

using pg::Call;
using pg::Failure;

const TargetColumn *Target::Find(const std::string &column) const {
  for (const TargetColumn &candidate : columns)
    if (candidate.name == column) return &candidate;
  return nullptr;
}

void Target::AddTo(pg::CatalogWatch &watch) const {
  watch.AddRelation(oid);
  if (!is_alone) watch.AddAllRelations();
  for (const TargetColumn &column : columns) watch.AddType(column.type);
}

std::string QualifiedName(Oid relation) {
  pg::PlainNames const plain;
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

Oid FindTarget(const Mapping &mapping) {
  Oid const relation = Call([&] {
    List *parts = stringToQualifiedNameList(mapping.target.c_str(), nullptr);
    return RangeVarGetRelid(makeRangeVarFromNameList(parts), AccessShareLock, true);
  });
  if (!OidIsValid(relation))
    throw Failure(ERRCODE_UNDEFINED_TABLE,
                  "target " + mapping.target + " of mapping \"" + mapping.name + "\" does not exist", "",
                  "Create it, or change the mapping with redis_migrate.alter_mapping.");
  return relation;
}

// Whether a partitioned table has rows on other servers: it then has no unique index.
bool HasForeignPartitions(Oid relation) {
  return Call([&] {
    List *tables = find_all_inheritors(relation, AccessShareLock, nullptr);
    for (int i = 0; i < list_length(tables); ++i)
      if (get_rel_relkind(list_nth_oid(tables, i)) == RELKIND_FOREIGN_TABLE) return true;
    return false;
  });
}

namespace {

std::string ConfirmCall(const Mapping &mapping) {
  return "SELECT redis_migrate.alter_mapping(" + pg::QuoteLiteral(mapping.migration) + ", " +
         pg::QuoteLiteral(mapping.name) + ", trust_target => true);";
}

}  // namespace

void CheckCode(const Mapping &mapping, const pg::UsedObjects &used) {
  pg::CheckCode(*mapping.accepted, used, GetUserId(), "mapping \"" + mapping.name + "\"",
                ConfirmCall(mapping));
}

Target LoadTargetRelation(const Mapping &mapping) {
  const std::string &name = mapping.target;
  Target target;
  target.name = name;
  target.oid = FindTarget(mapping);
  if (mapping.accepted)
    pg::CheckRelation(*mapping.accepted, target.oid, GetUserId(),
                      "target " + name + " of mapping \"" + mapping.name + "\"", ConfirmCall(mapping));
  Relation relation = Call([&] { return relation_open(target.oid, AccessShareLock); });
  char kind = relation->rd_rel->relkind;
  target.is_alone = (kind == RELKIND_RELATION || kind == RELKIND_FOREIGN_TABLE) &&
                    !relation->rd_rel->relispartition && !relation->rd_rel->relhassubclass &&
                    !relation->rd_rel->relhasrules;
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
  if (kind == RELKIND_PARTITIONED_TABLE)
    target.kind = HasForeignPartitions(target.oid) ? TargetKind::kRemote : TargetKind::kLocal;
  else if (kind == RELKIND_RELATION)
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
  Oid oid;
  bool usable;  // unique, valid, immediate, total and on plain columns
  bool nulls_not_distinct;
  std::map<AttrNumber, std::pair<Oid, Oid>> columns;  // equality and collation of each
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
    facts.oid = oid;
    facts.usable =
        index->rd_rel->relam == BTREE_AM_OID && form->indisunique && form->indisvalid && form->indimmediate &&
        Call([&] {
          return RelationGetIndexPredicate(index) == NIL && RelationGetIndexExpressions(index) == NIL;
        });
    facts.nulls_not_distinct = form->indnullsnotdistinct;
    for (int k = 0; facts.usable && k < form->indnkeyatts; ++k) {
      Oid const type = index->rd_opcintype[k];
      Oid const equality =
          Call([&] { return get_opfamily_member(index->rd_opfamily[k], type, type, BTEqualStrategyNumber); });
      facts.columns[form->indkey.values[k]] = {equality, index->rd_indcollation[k]};
    }
    Call([&] { index_close(index, AccessShareLock); });
    indexes.push_back(std::move(facts));
  }
  Call([&] { relation_close(relation, AccessShareLock); });
  return indexes;
}

// For a relation about whose indexes nothing is known.
void UseEqualityOfTypes(Target &target) {
  for (KeyColumn &key : target.keys) {
    key.equality = Call([&] { return lookup_type_cache(key.column.type, TYPECACHE_EQ_OPR)->eq_opr; });
    if (OidIsValid(key.equality)) continue;
    const char *type = Call([&] { return format_type_be(key.column.type); });
    throw Failure(ERRCODE_UNDEFINED_FUNCTION,
                  "key column \"" + key.column.name + "\" of " + target.name + " cannot identify rows",
                  "Type " + std::string(type) + " has no equality.");
  }
}

void FindKeys(Target &target, const std::vector<std::string> &key_columns) {
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
    target.keys.push_back({*column, InvalidOid, InvalidOid});
  }
  if (target.kind != TargetKind::kLocal) return UseEqualityOfTypes(target);
  bool covered = false;
  for (const IndexFacts &index : UniqueIndexes(target.oid)) {
    bool const covers = index.usable && index.columns.size() == wanted.size() &&
                        std::all_of(wanted.begin(), wanted.end(),
                                    [&](AttrNumber number) { return index.columns.count(number) > 0; });
    if (!covers) continue;
    covered = true;
    if (!nullable.empty() && !index.nulls_not_distinct) continue;
    target.key_index = index.oid;
    for (KeyColumn &key : target.keys) {
      auto [equality, collation] = index.columns.at(key.column.number);
      key.equality = equality;
      if (collation != key.column.collation) key.collation = collation;
    }
    return;
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

std::string CollationName(Oid collation) {
  return Call([&] {
    HeapTuple tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for collation %u", collation);
    auto *form = reinterpret_cast<Form_pg_collation>(GETSTRUCT(tuple));
    const char *name =
        quote_qualified_identifier(get_namespace_name(form->collnamespace), NameStr(form->collname));
    ReleaseSysCache(tuple);
    return name;
  });
}

}  // namespace

Target LoadTarget(const Mapping &mapping) {
  Target target = LoadTargetRelation(mapping);
  FindKeys(target, mapping.key_columns);
  return target;
}

std::string Target::NameBeside(std::string column) const {
  while (Find(column) != nullptr) column += "_";
  return column;
}

std::string KeyColumn::Collated(const std::string &expression) const {
  return OidIsValid(collation) ? "(" + expression + " COLLATE " + CollationName(collation) + ")" : expression;
}

std::string KeyColumn::Equal(const std::string &a, const std::string &b) const {
  std::string const left = Collated(a);
  const char *clause = Call([&] {
    StringInfoData buffer;
    initStringInfo(&buffer);
    generate_operator_clause(&buffer, left.c_str(), column.type, equality, b.c_str(), column.type);
    return const_cast<const char *>(buffer.data);
  });
  if (column.not_null) return clause;
  // An OR of this form is answered by two index scans; IS NOT DISTINCT FROM by none.
  return "(" + std::string(clause) + " OR " + a + " IS NULL AND " + b + " IS NULL)";
}

std::string KeyColumn::Operator() const {
  const char *name = Call([&] {
    HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(equality));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for operator %u", equality);
    auto *form = reinterpret_cast<Form_pg_operator>(GETSTRUCT(tuple));
    char *text = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
                          NameStr(form->oprname));
    ReleaseSysCache(tuple);
    return const_cast<const char *>(text);
  });
  return name;
}

}  // namespace prm
