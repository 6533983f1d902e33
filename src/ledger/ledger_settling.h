// Prepares the ledgers of mappings, so that a run can rely on their entries.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// Whether version 0.1 has defined the mapping, and no run has chosen its ledger since.
bool IsLedgerToBeChosen(const Mapping &mapping);

// Chooses the ledger of a mapping that version 0.1 has defined as add_mapping would. Returns whether that
// changes the definition in the catalog. Errors: those of LoadTarget and MappingQuery. Needs SPI.
bool ChooseLedgerAnew(const Mapping &mapping);

// Throws 55000 if the secret that the entries of a packed ledger were made with is lost. Needs SPI.
void RequireLedgerSecret(const Mapping &mapping);

// Makes sure that the entries of a mapping's ledger fit it, which costs little if an earlier run has done so.
// If the mapping now has a packed ledger, entries of a full one are converted, and entries that were made
// with another secret are hashed again. Draws the secret if there is none and no entry needs an earlier one.
// Errors: 55000 for a packed ledger whose secret is lost; those of LoadTarget. Needs SPI.
void SettleLedger(const Mapping &mapping);

}  // namespace prm
