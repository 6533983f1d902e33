// Tables that take writes only from the extension, because they belong to Redis again.
#pragma once

#include "mapping/catalog.h"

namespace prm {

// All functions need SPI, and the rights of the owner of the tables. until_ms: by the monotonic clock, for
// the locks of the tables, 55P03; who uses several of them in another order ends in no deadlock. A target
// that is a view stands for the table that it selects from.

// Errors: 0A000 for a target that cannot be fenced, 42P01 for one that is gone.
void RequireFenceableTables(const Migration &migration, const std::vector<std::string> &patterns);

// Other families, of any migration, whose rows stand in these tables, too, in one list; empty: none. A fence
// cannot tell their rows apart. only_owned: those that belong to PostgreSQL, or are about to.
std::string ListSharers(const Migration &migration, const std::vector<std::string> &patterns,
                        bool only_owned);

// Puts triggers around the targets of the patterns' mappings; waits for transactions that write to them.
// Errors: as above, 42501.
void FenceTables(const Migration &migration, const std::vector<std::string> &patterns, int64 until_ms);

// Removes them, where there are any; waits for transactions that read the tables, too.
void UnfenceTables(const Migration &migration, const std::vector<std::string> &patterns, int64 until_ms);

// Waits until UnfenceTables would not have to wait, as it must not for long while writes to Redis are held
// back.
void WaitUntilUnfenceable(const Migration &migration, const std::vector<std::string> &patterns,
                          int64 until_ms);

}  // namespace prm
