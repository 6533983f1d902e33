// The mark of a ledger: the secret with which its entries were made, and the key columns whose values they
// are hashes of. Entries of a packed ledger mean nothing with another secret, or when a key column has got
// another type.
#pragma once

#include "mapping/target.h"

namespace prm {

// Draws the secret of the ledgers, unless there is one. Needs SPI. Errors: 40001 when another transaction
// draws it, which this one cannot see.
void EnsureLedgerSecret();

enum class LedgerMark {
  kNone,         // no run has relied on the ledger
  kCurrent,      // the entries were made with the secret of today
  kOtherSecret,  // with another one, or the secret is gone
};
// Needs SPI.
LedgerMark ReadLedgerMark(int64 mapping_id);

// Marks the ledger of a mapping, which has no entries or only ones that were just made, as one of today. The
// secret is there. Needs SPI. Errors: those of LoadTarget.
void SetLedgerMark(const Mapping &mapping);

// Whether the entries of a ledger, which were made by the definition `old`, would be taken for other rows
// than they are of by a new one, or tell no more of which rows they are. Needs SPI. Errors: those of
// LoadTarget.
bool HasWorthlessEntries(const Mapping &old, const Mapping &mapping);

// Raises an error unless the entries of a packed ledger are hashes of such values as the key columns have
// now. Wider integers, text instead of varchar, a domain instead of its type and another deterministic
// collation change no hash. Labels that an enum has got since are added to the mark. Errors: 55000.
void RequireFittingKeyColumns(const Mapping &mapping, const Target &target);

// For the hint of an error about a packed ledger whose entries are worthless: the command that empties it,
// and what becomes of the rows. "let the ledger begin anew by …"
std::string HintToBeginAnew(const Mapping &mapping);

}  // namespace prm
