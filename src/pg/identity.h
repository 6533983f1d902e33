// Switches between the rights of two roles: the extension's own tables are written as the extension's owner,
// everything that a user defined runs as the user.
#pragma once

#include "pg/pg.h"
#include "pg/scope.h"

namespace prm::pg {

// Makes the extension's owner the current user for a scope, with a search_path that nobody can add operators
// to. Never commit inside: a commit while switched leaves the session as the owner. Locks the extension
// against DROP (ACCESS SHARE) until the end of the transaction, and waits for a DROP EXTENSION under way.
// Errors: 42704 when it has been dropped.
class AsExtensionOwner : Scope {
 public:
  AsExtensionOwner();
  ~AsExtensionOwner();

 private:
  Oid user_;
  int security_context_;
  int guc_nest_;
};

// Sets a setting until the end of the transaction, or until the subtransaction is rolled back, like SET
// LOCAL. Errors: those of SET.
void SetForTransaction(const char *name, const char *value);

// Sets settings for a scope. A value that is set already costs nothing.
class LocalSettings : Scope {
 public:
  LocalSettings();
  ~LocalSettings();
  // Errors: those of SET.
  void Set(const char *name, const std::string &value);

 private:
  int guc_nest_;
};

}  // namespace prm::pg
