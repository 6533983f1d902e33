// Chooses the ledger by which a mapping knows which rows of its target are its own.
#pragma once

#include "core/pattern.h"
#include "mapping/mapping_query.h"

namespace prm {

// Whether two different keys never yield the same row: every capture that tells keys apart stands unchanged
// in a key column. Captures of some types have several spellings of a value; in an exclusive mapping all but
// one are rejected when they come, see FillOptions.
bool KeysHaveRowsApart(const Mapping &mapping, const KeyPattern &pattern, const QueryFacts &facts);

// As above, also for the elements of a key: the column that tells them apart stands unchanged in a key
// column.
bool RowsTellKeysApart(const Mapping &mapping, const KeyPattern &pattern, const QueryFacts &facts);

// The column of redis_batch that a key column is a copy of, if it is one that the name of the key tells.
std::optional<std::string> NameColumnOf(const std::string &key_column, const KeyPattern &pattern,
                                        const QueryFacts &facts);

// Whether values that the key's index takes for the same have the same bytes, so that a hash of the bytes, or
// their text, stands for the value.
bool EqualMeansSameBytes(const KeyColumn &key);

struct LedgerChoice {
  std::string ledger;  // none, packed, full
  std::string reason;  // in words; for a packed ledger, how the name of a key becomes the key of its row
  std::string hint;    // what would make a full ledger a packed one; empty: nothing simple
};

// Chooses a packed ledger if no other key can have the rows of a key, and its name finds them. Takes ACCESS
// SHARE on the target and its indexes.
LedgerChoice ChooseLedger(const Mapping &mapping, const KeyPattern &pattern, const Target &target,
                          const QueryFacts &facts);

// The columns, as "(a, b)", with which an index of the target would have to begin for the mapping to have a
// packed ledger; nothing: that is not what it lacks. As its definition says it.
std::optional<std::string> ColumnsOfMissingIndex(const Mapping &mapping);

}  // namespace prm
