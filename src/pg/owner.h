// Owners of definitions: roles as the type redis_migrate.owner_role stores them.
//
// A role's OID means something only in the installation and database that stored it, so both are stored with
// it, and the role's name for everywhere else. A role that owns definitions has a grant on
// redis_migrate.definition_owners: the grant makes DROP ROLE fail, follows RENAME, is dumped by name, and is
// revoked by DROP OWNED.
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
  // Errors: 22P02 unless the text has the format of ToText.
  static Owner FromText(const std::string &text);

  // The owner of the definition; InvalidOid if the role does not exist or has no grant.
  Oid role() const;
  // The role that may see the definition: also one that gave it up by DROP OWNED.
  Oid viewer() const;
  // Why there is no owner; "" if there is one.
  std::string problem() const;
  // The current name of the role, or the stored one if the role is unknown.
  std::string name() const;
  // Whether this database stored it; otherwise it came with a dump, or the database is a copy.
  bool is_local() const;
  // Whether this is a role, by its OID here and by its name elsewhere. InvalidOid: PUBLIC.
  bool Is(Oid role) const;
  // The stored OID, whether or not it is valid here.
  Oid stored_role() const { return role_; }

 private:
  Oid Find() const;

  Oid role_ = InvalidOid;
  Oid database_ = InvalidOid;
  pg_uuid_t installation_{};
  std::string name_;
};

// Gives a role the grant of owners, unless it has it. Prevents DROP ROLE and a REVOKE of the grant until the
// end of the transaction. Errors: 54000 when there are too many owners.
void ClaimOwnership(Oid role);

// Whether a role may do to a definition what its owner may: the owner's privileges, or being a superuser.
bool HasOwnerRights(const Owner &owner, Oid user);

// DETAIL and HINT of messages about a definition of another role. `kind` and `name` as in the view
// redis_migrate.definitions.
std::string OwnerDetail(const Owner &owner);
std::string OwnerHint(const Owner &owner, const std::string &kind, const std::string &name);

}  // namespace prm::pg
