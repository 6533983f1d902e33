// Completes or undoes cutovers.
#pragma once

#include "cutover/cutover_record.h"
#include "cutover/fenced_users.h"
#include "mapping/catalog.h"
#include "pg/session_lock.h"

namespace prm {

// The patterns of a migration's mappings, or only that one. Errors: 42704.
std::vector<std::string> PatternsOf(const Migration &migration, const std::optional<std::string> &pattern);

// The migration, and the pattern unless these are all of them, as the arguments of calls in hints.
std::string ArgumentsFor(const Migration &migration, const std::vector<std::string> &patterns);

// Only one session cuts a migration over, or back, and only one the migrations of a server.
class CutoverLock {
 public:
  // server: empty if its masters are left alone. Errors: 55006 when another session still does after a
  // second.
  explicit CutoverLock(const std::string &migration, const std::string &server = "");

 private:
  pg::SessionLock lock_, server_lock_;
};

// Undoes a cutover that has not committed: gives users their rights back, ends the pause, and its families
// are those of Redis; or a cutback: ends the fence of the tables. Commits. problem: why. Cannot be cancelled,
// except while it waits for locks. Each master is tried, whatever happens at others. A WARNING names users
// who cannot get their rights back. Errors: those of the masters if users lack rights; 55P03 after ten
// seconds if the lock of the families, or one of a table, is not to be had; the record then stays as it is,
// for the next try.
void UndoCutover(const Migration &migration, CutoverRecord &record, const pg::Problem &problem);

// After the states have been committed: ends the pause, unless that was done already; then failed: what
// failed. A master that cannot be reached costs a warning: the pause ends by itself. After a cutback, gives
// users their rights back. Commits. Errors: those of the masters if users lack rights; the next try completes
// it.
void CompleteCutover(const Migration &migration, CutoverRecord &record,
                     std::optional<std::vector<pg::Failure>> failed);

// Completes or undoes one of the migration that was interrupted, with a WARNING. Commits. Errors: those of
// FindUnfinished and UndoCutover.
void SettleUnfinished(const Migration &migration);

// Before a migration is dropped: keeps others from cutting it over or back until the end of the transaction.
// Errors: 55006 when another session still cuts it over after a second; 55000 if one was interrupted here.
void RequireNoCutover(const std::string &migration);

// After it was dropped: WARNINGs name users of Redis who stay without their rights to write, and the rules
// that have gone with it.
void WarnOfUsersLeft(const UsersLeft &left);

}  // namespace prm
