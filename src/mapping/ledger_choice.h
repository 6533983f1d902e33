// Which ledger a mapping needs to know whose its target's rows are.
#pragma once

#include "core/pattern.h"
#include "mapping/mapping_query.h"

namespace prm {

// Whether two different keys never yield the same row: every capture that tells keys apart stands unchanged
// in a key column, and so does what tells the elements of a key apart. Captures of some types have several
// spellings of a value; in an exclusive mapping all but one are rejected when they come, see FillOptions.
bool RowsTellKeysApart(const Mapping &mapping, const KeyPattern &pattern, const QueryFacts &facts);

// The column of redis_batch that a key column is a copy of; nothing: it is computed.
std::optional<std::string> SourceOf(const std::string &key_column, const QueryFacts &facts);

struct LedgerChoice {
  std::string ledger;  // none, packed, full
  std::string reason;  // in words; of a packed ledger it tells how a key's name becomes the key of its row
};

// Packed where a key's name alone says which row is its own, and no other key has that row. Takes ACCESS
// SHARE on the target's catalog entries only.
LedgerChoice ChooseLedger(const Mapping &mapping, const KeyPattern &pattern, const Target &target,
                          const QueryFacts &facts);

}  // namespace prm
