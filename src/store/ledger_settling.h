// What has to be done before a run can rely on what the ledgers of its mappings have recorded.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// Chooses the ledger of a mapping that version 0.1 has defined as add_mapping would. Returns whether that
// changes the definition in the catalog. Errors: those of LoadTarget and MappingQuery. Needs SPI.
bool ChooseLedgerAnew(const Mapping &mapping);

// Makes sure that the entries of a mapping's ledger fit it. Those of a full ledger become entries of a packed
// one, if the mapping has that by now, and are hashed anew if they were made with another secret. Nothing is
// left to do when a run did so before. Errors: 55000 for a packed ledger whose secret is lost; those of
// LoadTarget. Needs SPI.
void SettleLedger(const Mapping &mapping);

}  // namespace prm
