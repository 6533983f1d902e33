// Users of Redis who have lost @write, as the extension's tables keep them.
//
// A user may be fenced by several cutovers, of other families or migrations. The rules from before the first
// of them are kept, and the user gets them back when no other holds it any more.
#pragma once

#include "cutover/cutover_record.h"

namespace prm {

// All functions need SPI and work in the current transaction with the rights of the extension's owner.

// Notes, for certain, that a cutover is about to fence these users.
void AddFencedUsers(const CutoverRecord &record, const std::vector<FencedUser> &users);
// Their rules afterwards.
void SaveFencedRules(const CutoverRecord &record, const std::vector<FencedUser> &users);

struct UsersToReturn {
  std::vector<FencedUser> users;
  std::vector<std::string> of_others;  // names: this database is a copy of the one that has fenced them
};

// A cutover that is undone returns its own users, but for those who were fenced already. A cutback returns
// the users of all cutovers of its families, but for those whom a cutover under way, or of a family that is
// still PostgreSQL's, has fenced, too: at this master, or at another one of the server, such as before a
// fail-over. Such a user is handed over to that cutover, and this one's fence counts as returned.
UsersToReturn FindUsersToReturn(const CutoverRecord &record);

// Notes that nothing is left to be done for them by the record's families.
void SetReturned(const CutoverRecord &record, const std::vector<FencedUser> &users);

// Whom a migration that is about to be dropped leaves without @write. Users whom the cutover of another
// migration has fenced, too, are handed over to that, as by FindUsersToReturn, and are none of them.
struct UsersLeft {
  std::vector<FencedUser> users;
  std::vector<FencedUser> of_others;  // likewise
};
UsersLeft FindUsersLeft(const std::string &migration);

// A user whom a cutover of the migration has fenced, of a family that is PostgreSQL's.
struct HeldUser {
  int64 cutover_id;  // the last of them
  FencedUser user;
  std::string trouble;  // why the user may write all the same
};
std::vector<HeldUser> FindHeldUsers(const std::string &migration);
// Notes one who is about to be fenced again, or at another master, as AddFencedUsers does.
void AddHeldUser(const HeldUser &held);
// Stores what is known of the user by now: its rules afterwards, the process of its master, and the trouble.
void UpdateHeldUser(const HeldUser &held);

}  // namespace prm
