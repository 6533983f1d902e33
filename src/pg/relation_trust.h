// The roles whose SQL runs in statements on a relation, or in the SQL of a definition.
//
// Triggers, rules, index expressions and row security of a relation run with the rights of the role that
// writes to it, and definitions name relations that others may own or replace. So a definition stores which
// relation its owner accepted, and who owned it. A relation that has changed hands since is not touched
// before the definition's owner confirms it. In the same way a superuser confirms the owners of what the SQL
// of his definitions uses: they can replace a function or a view by another that runs with his rights.
#pragma once

#include "pg/error.h"
#include "pg/owner.h"
#include "pg/used_objects.h"

namespace prm::pg {

// A relation as the owner of a definition last accepted it.
struct AcceptedRelation {
  Oid relation = InvalidOid;  // means something only where `owner` is local
  Owner owner;                // of the relation
  std::vector<Owner>
      trusted;                // roles that may run SQL of their own with the rights of the definition's owner
  bool is_confirmed = false;  // now: more roles are trusted rather than refused

  // From columns of these types: oid, owner_role, and owner_role[] as text[].
  static AcceptedRelation FromText(Oid relation, Datum owner, const std::vector<std::string> &trusted);
  std::vector<std::string> TrustedText() const;
};

// Error of CheckRelation and CheckCode.
class UnconfirmedRelation : public Failure {
 public:
  using Failure::Failure;
};

// Accepts a relation for a definition whose owner is or becomes `user`. Roles that gain the rights of `user`
// by it, because they own the relation, a partition of it, a table below a view or its schema, are a WARNING.
// A superuser has to say so with `is_confirmed`: otherwise error 55000. `name` is that of the relation. Needs
// SPI.
AcceptedRelation AcceptRelation(Oid relation, const std::string &name, Oid user, bool is_confirmed);

// Adds the roles that were trusted `before` with the relation, or with one of the same owner.
void KeepTrusted(AcceptedRelation &accepted, const AcceptedRelation &before);

// As the owner `user` of a definition: whether it may use the relation that its name resolves to. Returns
// what to store where that is another relation of the same owner, as after a rebuild. `subject` is it in
// messages ("table app.session"); `confirm` is the statement that confirms. Errors: UnconfirmedRelation
// (55000) for another relation of another owner, and when a role gains the rights of `user` that was not
// trusted with them. Needs SPI. Locks nothing: lock the relation first, so that it stays what it is.
std::optional<AcceptedRelation> CheckRelation(const AcceptedRelation &accepted, Oid relation, Oid user,
                                              const std::string &subject, const std::string &confirm);

// For a definition whose owner is the superuser `user`: whether its SQL may use that. `subject` and `confirm`
// as above. Errors: UnconfirmedRelation (55000) for relations, functions and types of roles that were not
// trusted. Needs SPI.
void CheckCode(const AcceptedRelation &accepted, const UsedObjects &used, Oid user,
               const std::string &subject, const std::string &confirm);

// Adds those roles to the trusted ones, with a WARNING, if `user` is a superuser and has confirmed it. Needs
// SPI.
void TrustCode(AcceptedRelation &accepted, const UsedObjects &used, Oid user);

// Returns what to accept when a superuser gives a definition to another role: the roles that gain the new
// owner's rights are trusted, unless that owner is a superuser, who has to confirm them.
AcceptedRelation AcceptForNewOwner(Oid relation, Oid user);

}  // namespace prm::pg
