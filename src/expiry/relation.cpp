#include "expiry/relation.h"

#include "pg/guard.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/plain_names.h"

namespace prm::expiry {

using pg::Spi;
using pg::SqlParam;

constexpr int kSamplePages = 64;

Oid FindRelation(const std::string &name, LOCKMODE lock) {
  return pg::Call([&] {
    RangeVar *range = makeRangeVarFromNameList(stringToQualifiedNameList(name.c_str(), nullptr));
    return RangeVarGetRelid(range, lock, true);
  });
}

std::string QualifiedName(Oid relation) {
  pg::PlainNames const plain;
  const char *name = pg::Call([&]() -> const char * {
    char *relation_name = OidIsValid(relation) ? get_rel_name(relation) : nullptr;
    if (relation_name == nullptr) return "";
    return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), relation_name);
  });
  return name;
}

Leaves FindLeaves(Oid relation) {
  Leaves leaves;
  if (!pg::Call([&] { return has_subclass(relation); }) &&
      pg::Call([&] { return get_rel_relkind(relation); }) == RELKIND_RELATION) {
    leaves.tables.emplace_back(QualifiedName(relation), relation);
    return leaves;
  }
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(WITH RECURSIVE tree AS (
                SELECT $1::oid AS relid
                UNION
                SELECT i.inhrelid
                FROM pg_inherits AS i JOIN tree ON i.inhparent = tree.relid
                WHERE NOT i.inhdetachpending)
            SELECT c.oid, c.relkind = 'f'
            FROM tree JOIN pg_class AS c ON c.oid = tree.relid
            WHERE c.relkind IN ('r', 'f'))sql",
      {SqlParam::OidOf(relation)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    Oid leaf = DatumGetObjectId(rows[i].Value(0));
    std::string name = QualifiedName(leaf);
    if (rows[i].Bool(1))
      ++leaves.foreign;
    else if (!name.empty())
      leaves.tables.emplace_back(name, leaf);
  }
  std::sort(leaves.tables.begin(), leaves.tables.end());
  return leaves;
}

bool HasIndexOn(Oid relation, int attnum) {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
                     JOIN pg_am AS m ON m.oid = c.relam
                     JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = $2
                   WHERE i.indrelid = $1 AND i.indisvalid AND m.amname = 'btree' AND i.indkey[0] = $2
                       AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) =
                            format('(%I IS NOT NULL)', a.attname))
                   LIMIT 1)sql",
             {SqlParam::OidOf(relation), SqlParam::Int4(attnum)})
             .size() > 0;
}

BlockNumber Pages(Oid table) {
  return pg::Call([&] {
    Relation relation = relation_open(table, AccessShareLock);
    BlockNumber pages = RelationGetNumberOfBlocks(relation);
    relation_close(relation, NoLock);
    return pages;
  });
}

double SampleShare(double pages) { return std::min(1.0, kSamplePages / std::max(pages, 1.0)); }

SqlParam SamplePercent(double share) {
  return {FLOAT4OID, Float4GetDatum(static_cast<float4>(100 * share)), false};
}

bool HidesRows(Oid table) {
  return Spi::ExecuteKept("SELECT pg_catalog.row_security_active($1)", {SqlParam::OidOf(table)})[0].Bool(0);
}

}  // namespace prm::expiry
