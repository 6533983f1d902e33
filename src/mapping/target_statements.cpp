#include "mapping/target_statements.h"

#include "pg/spi.h"
#include "pg/tuplestore.h"
#include "pg/user_sql.h"

namespace prm {

using pg::Failure;
using pg::QuoteIdentifier;
using pg::Spi;

namespace {

std::string Join(const std::vector<std::string> &parts, const char *separator) {
  std::string text;
  for (const std::string &part : parts) text += (text.empty() ? "" : separator) + part;
  return text;
}

// "ROW(a, b)::record": compared as images, so that types without equality work and 1.0 differs from 1.00.
std::string Record(const std::vector<std::string> &expressions) {
  return "ROW(" + Join(expressions, ", ") + ")::pg_catalog.record";
}

// A cast to the column's type. Without a length: an explicit cast would cut a text that is too long, and hide
// it.
std::string CastTo(const std::string &expression, const TargetColumn &column) {
  bool has_length = column.type == VARCHAROID || column.type == BPCHAROID || column.type == BITOID ||
                    column.type == VARBITOID;
  const char *type = pg::Call([&] {
    return const_cast<const char *>(format_type_extended(
        column.type, has_length ? -1 : column.typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
  });
  return "CAST((" + expression + ") AS " + type + ")";
}

std::string KeyJoin(const std::vector<KeyColumn> &keys, const std::string &left, const std::string &right) {
  std::vector<std::string> equalities;
  for (const KeyColumn &key : keys) {
    std::string const name = QuoteIdentifier(key.column.name);
    equalities.push_back(key.Equal(left + "." + name, right + "." + name));
  }
  return Join(equalities, " AND ");
}

}  // namespace

std::string KeysOfBatch(const Target &target, const std::string &alias) {
  if (!CanAskForFirstKey(target)) return "true";
  std::string const name = QuoteIdentifier(target.keys[0].column.name);
  return alias + "." + name + " " + target.keys[0].Operator() + " ANY (ARRAY(SELECT DISTINCT batch." + name +
         " FROM redis_rows AS batch))";
}

bool IsConflictKeyword(const std::string &on_conflict) {
  return on_conflict == "update" || on_conflict == "nothing" || on_conflict == "fill";
}

std::string CheckStatement(const std::string &condition) {
  return "SELECT FROM redis_rows WHERE (" + condition + "\n) IS NOT TRUE";
}

TargetStatements::TargetStatements(const Mapping &mapping, const Target &target,
                                   const std::vector<const TargetColumn *> &columns) {
  std::vector<std::string> names, inserted, assignments;
  bool overriding = false;
  auto compare = [&](const TargetColumn &column, const std::string &offered) {
    std::string const stored = "target." + QuoteIdentifier(column.name);
    compared.push_back(
        {&column, stored, offered, Record({stored}) + " OPERATOR(pg_catalog.*=) " + Record({offered})});
  };
  for (const TargetColumn *column : columns) {
    std::string name = QuoteIdentifier(column->name);
    names.push_back(name);
    inserted.push_back("excluded." + name);
    overriding = overriding || column->identity_always;
    bool const is_key = std::any_of(target.keys.begin(), target.keys.end(), [&](const KeyColumn &key) {
      return key.column.number == column->number;
    });
    if (column->identity_always || is_key) continue;
    if (mapping.on_conflict == "fill") {
      compared.push_back({column, "target." + name, "excluded." + name,
                          "NOT (target." + name + " IS NULL AND excluded." + name + " IS NOT NULL)"});
      assignments.push_back(name + " = COALESCE(target." + name + ", excluded." + name + ")");
    } else if (mapping.on_conflict == "update") {
      compare(*column, "excluded." + name);
      assignments.push_back(name + " = excluded." + name);
    }
  }
  if (!IsConflictKeyword(mapping.on_conflict)) {
    for (const pg::SetItem &item : pg::ParseSetList(mapping.on_conflict, "on_conflict", "")) {
      const TargetColumn *column = target.Find(item.column);
      if (column == nullptr)
        throw Failure(ERRCODE_UNDEFINED_COLUMN,
                      "column \"" + item.column + "\" of relation " + target.name + " does not exist",
                      "on_conflict of mapping \"" + mapping.name + "\" sets it.");
      compare(*column, CastTo(item.expression, *column));
      assignments.push_back(QuoteIdentifier(item.column) + " = " + item.expression);
    }
  }
  std::string unchanged = "true";
  std::vector<std::string> stored, offered, same;
  for (const Column &column : compared) {
    stored.push_back(column.stored);
    offered.push_back(column.offered);
    same.push_back(column.same);
  }
  if (!compared.empty())
    unchanged = mapping.on_conflict == "fill"
                    ? Join(same, " AND ")
                    : Record(stored) + " OPERATOR(pg_catalog.*=) " + Record(offered);

  std::string join = KeyJoin(target.keys, "target", "excluded");
  std::string const found = QuoteIdentifier(target.NameBeside("redis_found"));
  if (target.kind == TargetKind::kLocal) {
    before_list_ = "SELECT excluded.redis_row, target." + found + " IS NOT NULL, ";
    behind_list_ = " FROM redis_rows AS excluded LEFT JOIN LATERAL (SELECT true AS " + found +
                   ", stored.* FROM " + target.name + " AS stored WHERE " +
                   KeyJoin(target.keys, "stored", "excluded") + " LIMIT 1) AS target ON true";
  } else {
    before_list_ = "WITH target AS MATERIALIZED (SELECT true AS " + found + ", stored.* FROM " + target.name +
                   " AS stored WHERE " + KeysOfBatch(target, "stored") +
                   ") SELECT DISTINCT ON (excluded.redis_row) excluded.redis_row, "
                   "target." +
                   found + " IS NOT NULL, ";
    behind_list_ = " FROM redis_rows AS excluded LEFT JOIN target ON " + join;
  }
  look_up = LookUpOf(unchanged);
  insert = "INSERT INTO " + target.name + " (" + Join(names, ", ") + ")" +
           (overriding ? " OVERRIDING SYSTEM VALUE" : "") + " SELECT " + Join(inserted, ", ") +
           " FROM redis_rows AS excluded";
  is_of_batch = join + (target.kind == TargetKind::kRemote ? " AND " + KeysOfBatch(target, "target") : "");
  if (assignments.empty()) return;
  update = "UPDATE " + target.name + " AS target SET " + Join(assignments, ", ") +
           " FROM redis_rows AS excluded WHERE " + is_of_batch;
}

void TargetStatements::Check(TupleDesc desc) const {
  pg::Tuplestore empty;
  pg::NamedRows named(kRowsName, desc, empty.get());
  Spi::Execute("EXPLAIN " + look_up);
  if (!update.empty()) Spi::Execute("EXPLAIN " + update);
}

bool CanAskForFirstKey(const Target &target) {
  const TargetColumn &first = target.keys[0].column;
  return target.kind == TargetKind::kRemote && first.not_null &&
         pg::Call([&] { return !OidIsValid(get_base_element_type(first.type)); });
}

std::string DeleteStatement(const std::string &target, const std::string &on_delete) {
  if (on_delete == "delete") return "DELETE FROM " + target + " AS target";
  // A line of its own: a comment in the list must not swallow what follows.
  return "UPDATE " + target + " AS target SET " + on_delete + "\n";
}

void CheckDeleteStatement(const std::string &target, const std::string &on_delete) {
  if (on_delete == "delete" || on_delete == "keep") return;
  Spi::Execute("EXPLAIN " + DeleteStatement(target, on_delete) + " WHERE false");
}

}  // namespace prm
