// The parts of definitions that the folders above use.
#pragma once

#include "pg/pg.h"

namespace prm {

// Drops a migration: its definition, its archive and the history of its runs; target tables stay. Needs SPI.
// Errors: 42704, 42501, 55006 while it is running.
void DropMigration(const std::string &name);

}  // namespace prm
