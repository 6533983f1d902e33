// A mapping's target as the catalog has it.
#pragma once

#include "mapping/catalog.h"
#include "pg/catalog_watch.h"
#include "pg/used_objects.h"

namespace prm {

struct TargetColumn {
  std::string name;
  AttrNumber number;
  Oid type;
  int32 typmod;
  Oid collation;
  bool not_null;
  bool generated;        // GENERATED ALWAYS AS (…) STORED
  bool identity_always;  // GENERATED ALWAYS AS IDENTITY
};

// A column that identifies rows, and the equality of its values: that of the unique index, or of the type if
// there is no index.
struct KeyColumn {
  TargetColumn column;
  Oid equality;   // operator
  Oid collation;  // of the index, where it differs from that of the column

  // The condition that two expressions of the column's type are the same value. NULLs are equal if the column
  // can have any.
  std::string Equal(const std::string &a, const std::string &b) const;
  // An expression of the column's type with the collation under which it is compared.
  std::string Collated(const std::string &expression) const;
  // "OPERATOR(pg_catalog.=)"
  std::string Operator() const;
};

enum class TargetKind {
  kLocal,   // plain or partitioned table: rows are looked up through the unique index of the key columns
  kRemote,  // foreign table, table with foreign partitions, or view: looked up by a set of keys, as nothing
            // is known about its indexes
};

struct Target {
  Oid oid = InvalidOid;
  std::string name;  // schema-qualified and quoted
  TargetKind kind = TargetKind::kLocal;
  bool is_alone = true;  // no partition, parent, child or rule: no other relation stores or runs anything
  std::vector<TargetColumn> columns;
  std::vector<KeyColumn> keys;
  Oid key_index = InvalidOid;  // of a local target: the index on exactly them

  const TargetColumn *Find(const std::string &column) const;
  // The name for a column beside all those of the target: this one, or one like it that no column has.
  std::string NameBeside(std::string column) const;
  // Adds what this description was made from to a watch that began before.
  void AddTo(pg::CatalogWatch &watch) const;
};

// The relation that a mapping's target names now. Takes ACCESS SHARE for the transaction, so that it cannot
// be replaced. Errors: 42P01 when it is gone, naming the mapping.
Oid FindTarget(const Mapping &mapping);

// Reads that relation without what identifies its rows. The current user owns the mapping. Errors: as above;
// 42809 for what cannot be written to; 55000 for what the mapping's owner has to confirm. Needs SPI.
Target LoadTargetRelation(const Mapping &mapping);

// Reads the target of a mapping and what identifies its rows. Errors: as above. 42703 for key columns that do
// not exist; 42P10, with the statement that helps, where a local target has no valid, immediate unique index
// without predicate or expressions on exactly them, or one that lets NULLs repeat; 42883 for a type without
// equality.
Target LoadTarget(const Mapping &mapping);

// As the current user, who owns the mapping and is a superuser: whether it may use that. Errors: 55000 for
// code of roles that the mapping's owner has to confirm. Needs SPI.
void CheckCode(const Mapping &mapping, const pg::UsedObjects &used);

// The qualified, quoted name of a relation. Errors: 42P01 no such relation.
std::string QualifiedName(Oid relation);

}  // namespace prm
