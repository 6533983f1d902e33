// The second source of names of keys: the full ledger, for mappings whose rows do not name their keys. It
// knows the rows that came from Redis, and those that only the application has written have no name.
#pragma once

#include "mapping/mapping_query.h"
#include "reverse/reverse_mapping.h"

namespace prm {

// The columns of redis_rows that name the key, of such mappings.
extern const char *const kLedgerColumns[2];

// Why the ledger of a mapping cannot name the keys of rows, in words; "": it has no full ledger. Nothing: it
// can. Needs SPI.
std::optional<std::string> WhyLedgerCannotName(const Mapping &mapping, const Target &target,
                                               const QueryFacts &facts);

// Needs SPI and the rights of the mapping's owner; reads with the active snapshot.
class LedgerNames {
 public:
  LedgerNames(const Mapping &mapping, const Target &target);

  // A row of a key: its identity as the ledger has it.
  struct Entry {
    std::string row_key;
    RowName name;
  };

  // The rows of these keys that the ledger has.
  std::vector<Entry> FindRows(const std::set<RowName> &names);

  // The keys of rows, given by the texts of their key columns; not canonical. Rows that the ledger does not
  // have are left out, and keys that are no text. Errors: those of casts of the texts to the columns' types.
  std::map<RowName, RowName> FindNames(const ReverseMapping &reverse, const std::set<RowName> &rows);

  // The next keys of the ledger, after a position, which becomes that of the last; empty: from the beginning,
  // or, when it returns, there are no more. Errors: none of its own.
  std::vector<RowName> ReadNames(int limit, RowName &position) const;

  // "WITH …, redis_rows AS (…)": see ReverseMapping::ReadStatement.
  const std::string &RowsQuery() const { return rows_query_; }

  // As the outbox has the name of a key. It has more parts than the identity of a row.
  RowName Noted(const RowName &name) const;
  // The name of such a key; nothing: it is a row's identity.
  std::optional<RowName> FromNoted(const RowName &noted) const;

 private:
  int64 mapping_id_;
  size_t key_columns_;
  std::string rows_query_;
  pg::KeptStatement identify_, find_names_, find_rows_;
};

// The mappings of these whose keys the ledger names, quoted; "": none.
std::string ListNamedByLedger(const std::vector<ReverseMapping> &reverses);
// For messages about them.
extern const char *const kWhyNameless;

}  // namespace prm
