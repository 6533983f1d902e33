// What the catalog says about a mapping's target.
#pragma once

#include "pg/pg.h"

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

enum class TargetKind {
  kLocal,   // plain or partitioned table: rows are looked up through the unique index of the key columns
  kRemote,  // foreign table or view: looked up by a set of keys, as nothing is known about its indexes
};

struct Target {
  Oid oid = InvalidOid;
  std::string name;  // schema-qualified and quoted
  TargetKind kind = TargetKind::kLocal;
  std::vector<TargetColumn> columns;

  const TargetColumn *Find(const std::string &column) const;
};

// Reads the target by its quoted, qualified name. Takes ACCESS SHARE for the transaction.
// Errors: 42P01 when it is gone, naming the mapping; 42809 for what cannot be written to.
Target LoadTarget(const std::string &name, const std::string &mapping);

// The qualified, quoted name of a relation. Errors: 42P01 no such relation.
std::string QualifiedName(Oid relation);

// Checks that key_columns can identify rows: they exist, and in a local target a valid, immediate unique
// index without predicate or expressions covers exactly them, and no NULL can slip past it. Errors: 42703,
// 42P10 with the statement that creates the index, 42P10 for NULL-able columns.
void CheckKeyColumns(const Target &target, const std::vector<std::string> &key_columns);

}  // namespace prm
