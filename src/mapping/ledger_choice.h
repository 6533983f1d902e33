// Which ledger a mapping needs to know whose its target's rows are.
#pragma once

#include "core/pattern.h"
#include "mapping/mapping_query.h"

namespace prm {

// Whether two different keys never yield the same row: every capture that tells keys apart stands unchanged
// in a key column. Captures of some types have several spellings of a value; in an exclusive mapping all but
// one are rejected when they come, see FillOptions.
bool KeysHaveRowsApart(const Mapping &mapping, const KeyPattern &pattern, const QueryFacts &facts);

// The same of the elements of keys, too: what tells those of a key apart stands unchanged in a key column.
bool RowsTellKeysApart(const Mapping &mapping, const KeyPattern &pattern, const QueryFacts &facts);

// The column of redis_batch that a key column is a copy of, if it is one that the name of the key tells.
std::optional<std::string> NameColumnOf(const std::string &key_column, const KeyPattern &pattern,
                                        const QueryFacts &facts);

struct LedgerChoice {
  std::string ledger;  // none, packed, full
  std::string reason;  // in words; of a packed ledger it tells how a key's name becomes the key of its row
};

// Packed where no other key has a key's rows, and these are found by its name. Takes ACCESS SHARE on the
// target and its indexes.
LedgerChoice ChooseLedger(const Mapping &mapping, const KeyPattern &pattern, const Target &target,
                          const QueryFacts &facts);

}  // namespace prm
