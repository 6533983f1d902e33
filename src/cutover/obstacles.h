// The obstacles to a cutover, before it has begun.
#pragma once

#include "core/key_id.h"
#include "mapping/catalog.h"

namespace prm {

// Why live sync cannot carry a cutover at all: it is not under way, not loaded, or another server's, of which
// this one is a copy. Empty: it can. Needs SPI.
std::string FindLiveObstacle(const std::string &migration);

// Why it is not proved that the families are equal, each a clause: no verification of late, but for keys that
// never held still; rejects that are open. verified_since: when the verification ended at the earliest. Needs
// SPI.
std::vector<std::string> FindObstacles(const Migration &migration, const std::vector<std::string> &patterns,
                                       TimestampTz verified_since);

// The keys of the families that never held still in those verifications, which have proved all others. Needs
// SPI.
std::vector<KeyId> FindUnsettled(const Migration &migration, const std::vector<std::string> &patterns,
                                 TimestampTz verified_since);

// Mappings of the families that are taken for counters, quoted, in one list: those with a SET list for rows
// that are there, and those that take strings and fill a number that is no key. Empty: none. Needs SPI.
std::string FindCounters(const Migration &migration, const std::vector<std::string> &patterns);

// Mappings of the families whose targets are none of the relations that are watched for the pattern, nor
// partitions of them: what changes there is not noted. Needs SPI and the rights of the owner.
std::vector<std::string> FindUnnoted(const Migration &migration, const std::vector<std::string> &patterns,
                                     const std::map<std::string, std::vector<Oid>> &watched);

// The mappings, quoted, of which the reverse feed has met rows, since the families became PostgreSQL's, whose
// keys the ledger, which names them, does not know; "": none. Redis lacks these rows.
std::string FindNameless(const Migration &migration, const std::vector<std::string> &patterns);

// The numbers of the mappings of the families whose changes are noted, ascending. Needs SPI.
std::vector<int64> FindNoted(const Migration &migration, const std::vector<std::string> &patterns);

}  // namespace prm
