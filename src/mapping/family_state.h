// Who owns families, Redis or PostgreSQL. A family is the keys of a pattern, with all its mappings.
#pragma once

#include "pg/pg.h"

namespace prm {

// SQL: whether the family of a mapping m is Redis' again, after it was PostgreSQL's. Nothing of it is sent to
// Redis then: whatever would be, Redis may have newer values.
extern const char *const kIsRedisAgain;

// SQL: whether the family of a mapping m is Redis', and live sync follows it, or was stopped and may go on.
// All rows are not written to Redis then: the application may have written newer values there, or keys that
// have no rows yet, most of all while live sync is stopped.
extern const char *const kFollowsRedis;

// The patterns of the families of a migration that belong to PostgreSQL: their rows are the application's.
// Keeps the states of the migration's families as they are until the end of the transaction. Needs SPI.
// Errors: 55P03, 40P01, 57014, as for any wait for a lock.
std::set<std::string> LockOwnedFamilies(const std::string &migration);

// For a change of states: waits for the batches that are being stored, and keeps others away until the end of
// the transaction. Errors: as above.
void LockFamiliesForChange(const std::string &migration);

// Likewise, but waits no longer than so many milliseconds; false then. Errors: 40P01, 57014.
bool LockFamiliesWithin(const std::string &migration, int64 wait_ms);

// Keeps the states as they are until the end of the transaction, as LockOwnedFamilies does, but does not
// wait: false while somebody changes one.
bool TryLockFamilies(const std::string &migration);

// The state of a family. Needs SPI.
std::string FamilyState(const std::string &migration, const std::string &pattern);

// Changes it, unless it is that already. The families are locked for change. Needs SPI.
void ChangeFamilyState(const std::string &migration, const std::string &pattern, const std::string &state,
                       const std::optional<std::string> &note);

}  // namespace prm
