// How the rows of a mapping become keys again: the key from the columns that hold its captures, or from the
// full ledger, the value by a query.
#pragma once

#include "core/pattern.h"
#include "mapping/routing.h"
#include "mapping/target.h"
#include "pg/kept_statement.h"
#include "sink/whole_value.h"

namespace prm {

// The columns of a row that the name of its key consists of, as canonical text: a capture each, or the key
// itself. A month is its first day. Where the ledger names the keys: the database and the key.
using RowName = std::vector<std::string>;

// Why a mapping's rows cannot become keys, and what helps.
struct ReverseProblem {
  std::string problem;
  std::string hint;
};

class LedgerNames;

struct ReverseMapping {
  Mapping mapping;
  Target target;
  KeyPattern pattern;
  std::shared_ptr<const Routing> routing;
  bool has_whole_key = false;         // one column, which is the key
  int db = 0;                         // of its keys, unless the ledger names them
  std::vector<KeyColumn> names = {};  // of the target, in the order of the captures; or its key columns
  std::string query = {};             // over redis_rows, see SetReverseQuery
  bool is_of_owner = false;           // the query: it was not derived
  // The column that says when the key of a row expires in Redis, if the row alone is the key.
  std::optional<std::string> expires_column = std::nullopt;
  std::shared_ptr<pg::KeptStatement> read = nullptr;  // ReadStatement, prepared
  std::shared_ptr<LedgerNames> ledger = nullptr;      // nullptr: the columns name the key

  // How many parts a name has.
  size_t NameSize() const { return ledger ? 2 : names.size(); }
  // The database and the key of a canonical name.
  int DbOf(const RowName &name) const;
  std::string KeyOf(const RowName &name) const;
  // For messages: letters and digits of what the pattern captures are x.
  std::string MaskedKeyOf(RowName name) const;
  // Nothing: the key is not one of the mapping, or is spelled as none that has rows.
  std::optional<RowName> NameOf(int key_db, Bytes key) const;
  // From the texts of the columns, "" for NULL, or of a database and a key. Nothing: they do not make a key
  // of the mapping.
  std::optional<RowName> Canonical(RowName name) const;
  // The column of the query that holds a part of the name.
  std::string NameColumn(size_t name) const;
  // Selects (names…, type, elements, expires_at, bytes before them, own bytes) of the rows with the names of
  // two parameters: an array of text with those of the first column, then of the second, and so on; and how
  // many there are. Where the ledger names the keys, of three arrays: identities of rows as it has them, and
  // the database and the key of each. Beyond kMostReverseBytes before them the elements are left out.
  std::string ReadStatement() const;
  // Selects the columns `names` of rows, which follow those of the parameters, NULL to begin with, in order,
  // `limit` at most.
  std::string PageStatement(int limit) const;

  // "CAST(expression AS type)" of the column at a position of `names`.
  std::string Cast(size_t column, const std::string &expression) const;
};

constexpr int kMostReverseBytes = 8 << 20;

// Finds the way back of a mapping that has one, or says why there is none. Errors: those of LoadTarget and
// MappingQuery. Takes ACCESS SHARE on the target. Needs SPI and the rights of the owner.
std::optional<ReverseProblem> FindReverse(const Mapping &mapping,
                                          const std::shared_ptr<const Routing> &routing,
                                          std::optional<ReverseMapping> &reverse);

// The ways back of a migration, or of one of its patterns; of several mappings of one pattern, of the one
// that has a reverse query. problems: by the name of the mapping. The same errors.
std::vector<ReverseMapping> FindReverses(const Migration &migration,
                                         const std::optional<std::string> &pattern,
                                         std::map<std::string, ReverseProblem> &problems);

// As above, of those whose rows the reverse feed can write to the server: a cluster has database 0 only.
// Errors: those of ServerOptions, too.
std::vector<ReverseMapping> FindFedMappings(const Migration &migration,
                                            const std::optional<std::string> &pattern,
                                            std::map<std::string, ReverseProblem> &problems);

// Nothing: there was no room for it. Without a type: the row does not tell what the key is.
using ReverseValue = std::optional<sink::WholeValue>;

// Makes sure that the target is the relation that was found, until the end of the transaction: whoever may
// replace it could have functions called with the owner's rights. Errors: 55000, those of LoadTargetRelation.
void RequireTarget(const ReverseMapping &reverse);

// What reading the values of keys uses. Needs SPI. Errors: those of the analysis.
pg::UsedObjects UsedByQuery(const ReverseMapping &reverse);

// Reads the rows with these canonical names: the values of their keys. bytes: of all of them. unknown: gets
// those names that the ledger, if it names the keys, has no row of. With the settings of the mapping. Errors:
// those of RequireTarget; 55000 for code of roles that a superuser has to confirm; 22023, naming the mapping,
// for a value that no key can have, for two values of one key, and for a name that is not one of these; those
// of the query.
std::map<RowName, ReverseValue> ReadReverseRows(const ReverseMapping &reverse, const std::set<RowName> &names,
                                                int64 &bytes, std::set<RowName> *unknown = nullptr);

// The texts of the columns `names` of some rows, in order, after those of `last`, which become those of the
// last row; empty: from the beginning, or, when it returns, there are no more. Errors: those of
// RequireTarget.
std::vector<RowName> ReadRowColumns(const ReverseMapping &reverse, int limit, RowName &last);

// Likewise, the canonical names of the keys: of rows, or, where the ledger names the keys, of its entries,
// whose rows may be gone; `last` is then only a position.
std::vector<RowName> ReadReverseNames(const ReverseMapping &reverse, int limit, RowName &last);

}  // namespace prm
