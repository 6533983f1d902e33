// Switches between two roles' rights. The extension's own tables are written with the rights of the
// extension's owner, everything that a user defined runs with the rights of the user.
#pragma once

#include "pg/pg.h"
#include "pg/scope.h"

namespace prm::pg {

// For a scope: the extension's owner as current user, and a search_path that nobody can put operators into.
// Never commit inside: a commit while switched leaves the session as the owner. Keeps the extension from
// being dropped until the end of the transaction (ACCESS SHARE on it), and waits for a DROP EXTENSION under
// way. Errors: 42704 when it has been dropped.
class AsExtensionOwner : Scope {
 public:
  AsExtensionOwner();
  ~AsExtensionOwner();

 private:
  Oid user_;
  int security_context_;
  int guc_nest_;
};

// Settings of the session for a scope, as SET LOCAL would make them.
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
