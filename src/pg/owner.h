// Owners of definitions: roles as the type redis_migrate.owner_role stores them.
//
// A role's OID means something only in the installation and database that stored it, so both are stored with
// it, and the role's name for everywhere else. That a role may own definitions is a grant on
// redis_migrate.definition_owners: DROP ROLE fails while there is one, RENAME follows, pg_dump writes it by
// name, and DROP OWNED revokes it.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

class Owner {
 public:
  Owner() = default;  // nobody
  // From a value of type redis_migrate.owner_role.
  explicit Owner(Datum stored);
  // The role as this database stores it now.
  static Owner Of(Oid role);

  Datum ToDatum() const;
  std::string ToText() const;
  // Errors: 22P02 for what ToText does not write.
  static Owner FromText(const std::string &text);

  // Who owns the definition; InvalidOid for nobody: the role does not exist, or has no grant.
  Oid role() const;
  // Who may see it: also a role of this database that has given its definitions up by DROP OWNED.
  Oid viewer() const;
  // Why there is nobody; "" where there is somebody.
  std::string problem() const;
  // Its name now, or as it was when that is not known.
  std::string name() const;
  // Whether this database has stored it; otherwise it came by a dump or is a copy's.
  bool is_local() const;
  // As it was stored, whether it means something or not.
  Oid stored_role() const { return role_; }

 private:
  Oid Find() const;

  Oid role_ = InvalidOid;
  Oid database_ = InvalidOid;
  pg_uuid_t installation_{};
  std::string name_;
};

// For a role that defines something: grants it what owners have, unless it has it. Until the end of the
// transaction the role is not dropped and its grant not revoked. Errors: 54000 when there are too many
// owners.
void ClaimOwnership(Oid role);

// Whether a role may do to a definition what its owner may: the owner's privileges, or being a superuser.
bool HasOwnerRights(const Owner &owner, Oid user);

// For messages about a definition of somebody else: who owns it, and what helps. `kind` and `name` as in the
// view redis_migrate.definitions.
std::string OwnerDetail(const Owner &owner);
std::string OwnerHint(const Owner &owner, const std::string &kind, const std::string &name);

}  // namespace prm::pg
