// The checks of a definition, so that a run meets only bad data.
#pragma once

#include "core/pattern.h"
#include "mapping/catalog.h"

namespace prm {

// Whether the user may read from where the migration reads, and whether that is enough for the source. The
// archive needs neither server nor file, but the keys in it came from somewhere. Errors: 22023, 42704, 42501,
// 42602.
void CheckPlaces(const Migration &migration, const std::string &source);

// Numbers of databases, for a migration or a mapping. Errors: 22023.
void CheckDatabases(const std::optional<std::vector<int>> &databases);

// Notes the patterns that share keys of these databases with a new one, and which of them goes first.
void ReportOverlaps(const Migration &migration, const KeyPattern &pattern, const DatabaseNumbers &databases);

// Warns of each mapping that can never get a key once a definition has changed. Not again of those that
// could not before, unless it is the one that `changed` names.
void WarnOfKeylessMappings(const Migration &before, const Migration &after, const std::string &changed = "");

// The definition as it will be with a mapping added or replaced.
Migration With(Migration migration, const Mapping &mapping);

// Checks a mapping whole against its siblings, its target and its query, under the settings that it will run
// with; decides which ledger it needs. Errors, each naming what is wrong: 22023, 42710, and those of
// LoadTarget, MappingQuery, TargetStatements and InDependencyOrder. Takes ACCESS SHARE on the target.
void CheckUnderSettings(const Migration &migration, Mapping &mapping);

// The condition of a check, which stands for itself, as PostgreSQL analyses it over the target's columns.
// Errors: 42601, and those of the analysis.
void CheckCondition(const Mapping &mapping, const std::string &condition);

}  // namespace prm
