// The checks of a definition: after them, only data can be wrong in a run.
#pragma once

#include "core/pattern.h"
#include "mapping/catalog.h"

namespace prm {

// Checks that the user may read from the migration's server and file, and that these suffice for the source.
// The archive needs neither, but the keys in it came from one of them. Errors: 22023, 42704, 42501, 42602.
void CheckPlaces(const Migration &migration, const std::string &source);

// Checks the numbers of databases of a migration or mapping. Errors: 22023.
void CheckDatabases(const std::optional<std::vector<int>> &databases);

// Whether a mapping's pattern shares keys with another pattern of the migration.
bool HasOverlaps(const Migration &migration, const Mapping &mapping);

// Reports, as a NOTICE, the patterns that share keys of these databases with a new one, and which of them
// takes precedence.
void ReportOverlaps(const Migration &migration, const KeyPattern &pattern, const DatabaseNumbers &databases);

// Warns, after a definition has changed, of each mapping that can never get a key. Does not repeat the
// warning for one that could not before, unless `changed` names it.
void WarnOfKeylessMappings(const Migration &before, const Migration &after, const std::string &changed = "");

// The definition as it will be with a mapping added or replaced.
Migration With(Migration migration, const Mapping &mapping);

// Checks a mapping whole against its siblings, its target and its query, under the settings that it will run
// with; decides which ledger it needs. Errors, each naming what is wrong: 22023, 42710, and those of
// LoadTarget, MappingQuery, TargetStatements and InDependencyOrder. Takes ACCESS SHARE on the target.
void CheckUnderSettings(const Migration &migration, Mapping &mapping);

// The condition of a check of the mapping, which stands for itself, as PostgreSQL analyses it over the
// target's columns. Trusts the roles whose code it runs where the owner has confirmed that. Errors: 42601,
// those of the analysis, and of MappingQuery.
void CheckCondition(Mapping &mapping, const std::string &condition);

}  // namespace prm
