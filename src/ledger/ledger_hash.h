// The hashes by which the indexes of the full ledger find rows and keys. Names can be of any length; those
// with equal hashes are compared.
#pragma once

#include "ledger/ledger.h"

namespace prm {

// Of a row of a mapping, by the text of its identity. The hasher has nothing in it.
int64 LedgerHashOfRow(RowHasher &hasher, int64 mapping_id, Bytes row_key);

// Of a key of a mapping. Likewise.
int64 LedgerHashOfKey(RowHasher &hasher, int64 mapping_id, const KeyName &key);

}  // namespace prm
