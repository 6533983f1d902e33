// How the rows of a mapping become keys again: the key from the columns that hold its captures, the value by
// a query.
#pragma once

#include "core/pattern.h"
#include "mapping/catalog.h"
#include "mapping/target.h"
#include "pg/kept_statement.h"
#include "redis/value_commands.h"

namespace prm {

// The columns of a row that the name of its key consists of, as text: a capture each, or the key itself.
using RowName = std::vector<std::string>;

// Why a mapping's rows cannot become keys, and what helps.
struct ReverseProblem {
  std::string problem;
  std::string hint;
};

struct ReverseMapping {
  Mapping mapping;
  Target target;
  KeyPattern pattern;
  bool has_whole_key = false;         // one column, which is the key
  int db = 0;                         // of its keys
  std::vector<KeyColumn> names = {};  // of the target, in the order of the captures
  std::string query = {};             // over redis_rows, see SetReverseQuery

  std::string KeyOf(const RowName &name) const { return has_whole_key ? name[0] : pattern.Compose(name); }
  // The captures of a key; nothing: it is not one of the mapping.
  std::optional<RowName> NameOf(Bytes key) const;
  // Selects (names…, type, elements, expires_at) of the rows with the names that arrays of text hold, a
  // parameter for each column.
  std::string ReadStatement() const;
  // Selects the names that follow those of the parameters, which are NULL to begin with, in order, `limit` at
  // most.
  std::string PageStatement(int limit) const;

  // "CAST(expression AS type)" of the column at a position of `names`.
  std::string Cast(size_t column, const std::string &expression) const;
};

// Finds the way back of a mapping that has one, or says why there is none. Errors: those of LoadTarget and
// MappingQuery. Takes ACCESS SHARE on the target. Needs SPI and the rights of the owner.
std::optional<ReverseProblem> FindReverse(const Mapping &mapping, std::optional<ReverseMapping> &reverse);

// The ways back of a migration, or of one of its patterns; of several mappings of one pattern, of the one
// that has a reverse query. problems: by the name of the mapping. The same errors.
std::vector<ReverseMapping> FindReverses(const Migration &migration,
                                         const std::optional<std::string> &pattern,
                                         std::map<std::string, ReverseProblem> &problems);

// Reads a row of ReadStatement: its name, and the value of its key. Errors: 22023 for a value that no key can
// have, naming the mapping and the type.
std::pair<RowName, redis::WholeValue> ReadReverseRow(const ReverseMapping &reverse, const pg::Row &row);

}  // namespace prm
