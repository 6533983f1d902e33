// Rows of a mapping that none of the keys yields that a verification has read.
#pragma once

#include "core/packed_items.h"
#include "mapping/catalog.h"
#include "verify/verification_record.h"

namespace prm {

// Why nobody can tell which rows of the target have lost their keys; empty: it can be told.
std::string WhyUnmetAreUnknown(const Mapping &mapping);

struct UnmetRow {
  PackedItem version;  // stands for the row as it is: one that is written again has another
  Bytes key;           // the key columns, as the text of an array
};

// Visits them, in one scan of the target: with a ledger those that it knows, of an exclusive mapping all.
// Left out are rows that have expired, as their keys have, and those that on_delete would leave as they are.
// only_suspects: of those whose versions were noted as such. visit: may write in the current transaction.
// Returns how many there are. Needs SPI. Errors: those of LoadTarget, MappingQuery and a SELECT by the
// current user.
int64 VisitUnmetRows(const Mapping &mapping, const VerificationRecord &record, bool only_suspects,
                     const std::function<void(const UnmetRow &)> &visit);

}  // namespace prm
