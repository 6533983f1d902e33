// Keeps the application from writing to tables that are Redis' again.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// Creates the triggers of all targets of the mappings of these families, once each. Waits for transactions
// that write to them, at most so long. Errors: 55P03, those of CREATE TRIGGER.
void FenceTables(const Migration &migration, const std::vector<std::string> &patterns, int64 wait_ms);

// Drops them where they are. Errors: 55P03, those of DROP TRIGGER.
void UnfenceTables(const Migration &migration, const std::vector<std::string> &patterns, int64 wait_ms);

}  // namespace prm
