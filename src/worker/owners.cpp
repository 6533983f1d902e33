// The SQL functions for definitions of dropped roles and in restored databases.
#include "mapping/migration_lock.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/owner.h"
#include "pg/relation_trust.h"
#include "pg/spi.h"

namespace prm::worker {
namespace {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

// A table with an owner per row, and the condition for the rows of a definition named $2.
struct Owned {
  const char *kind;
  const char *table;
  const char *is_named;
  const char *with_owner;  // other changes when a row becomes a definition of this database
};
constexpr Owned kOwned[] = {
    {"migration", "migration", "migration = $2", ""},
    {"migration", "run", "migration = $2", ""},
    // Clears the marks of workers of the other database, and of its server.
    {"migration", "background_run", "migration = $2",
     ", marked_at = NULL, incarnation = NULL, instance = NULL, not_before = NULL, state = CASE WHEN wanted "
     "THEN 'starting' ELSE state END"},
    {"audit", "audit", "audit_id::text = $2", ""},
    {"expiry", "job", "kind = 'expiry' AND name = $2", ""},
    {"refresh", "job", "kind = 'refresh' AND name = $2", ""},
    {"rate limit", "rate_limit_policy", "policy = $2", ""},
    {"lockout", "lockout_policy", "policy = $2", ""},
};

// The columns in which the owner of a definition accepts relations.
struct Accepting {
  const char *kind;
  const char *table;
  const char *id;
  const char *name;  // of the relation
  const char *relation;
  const char *owner;  // of the relation
  const char *is_named;
  const char *definition_owner;
};
constexpr Accepting kAccepting[] = {
    {"migration", "mapping", "mapping_id", "target", "target_relation", "target_owner", "migration = $1",
     "(SELECT m.owner FROM redis_migrate.migration AS m WHERE m.migration = t.migration)"},
    {"expiry", "job", "job_id", "name", "relation", "relation_owner", "kind = 'expiry' AND name = $1",
     "t.owner"},
    {"refresh", "job", "job_id", "name", "relation", "relation_owner", "kind = 'refresh' AND name = $1",
     "t.owner"},
};

// The new owner of a definition accepts what its relations are now. What does not exist stays as it is.
void AcceptAs(Oid role, const std::string &kind, const std::string &name) {
  for (const Accepting &accepting : kAccepting) {
    if (kind != accepting.kind) continue;
    pg::AsExtensionOwner as_owner;
    auto rows =
        Spi::Execute(std::string("SELECT ") + accepting.id + ", to_regclass(" + accepting.name +
                         ")::oid FROM redis_migrate." + accepting.table + " WHERE " + accepting.is_named,
                     {SqlParam::Text(name)});
    for (uint64 i = 0; i < rows.size(); ++i) {
      if (rows[i].IsNull(1)) continue;
      pg::AcceptedRelation const accepted = pg::AcceptForNewOwner(DatumGetObjectId(rows[i].Value(1)), role);
      Spi::Execute(std::string("UPDATE redis_migrate.") + accepting.table + " SET " + accepting.relation +
                       " = $2, " + accepting.owner +
                       R"sql( = $3::redis_migrate.owner_role,
                              trusted_roles = $4::redis_migrate.owner_role[]
                              WHERE )sql" +
                       accepting.id + " = $1",
                   {SqlParam::Int8(rows[i].Int8(0)), SqlParam::OidOf(accepted.relation),
                    SqlParam::Text(accepted.owner.ToText()), SqlParam::TextArray(accepted.TrustedText())});
    }
  }
}

// After a restore, for definitions that are this database's own by now: stores the relations that belong to
// the owner of that name. Any other relation waits for its definition's owner.
void AcceptRestored() {
  const char *last = "";
  for (const Accepting &accepting : kAccepting) {
    if (strcmp(accepting.table, last) == 0) continue;
    last = accepting.table;
    pg::AsExtensionOwner as_owner;
    Spi::Execute(std::string("UPDATE redis_migrate.") + accepting.table + " AS t SET " + accepting.relation +
                 " = c.oid, " + accepting.owner +
                 R"sql( = redis_migrate.stamp_owner(c.relowner),
              trusted_roles = ARRAY(SELECT redis_migrate.stamp_owner(r.oid)
                                    FROM unnest(t.trusted_roles) AS trusted
                                      JOIN pg_roles AS r
                                        ON r.rolname = redis_migrate.owner_name(trusted))
              FROM pg_class AS c
              WHERE c.oid = to_regclass(t.)sql" +
                 accepting.name + ") AND redis_migrate.is_restored(t." + accepting.owner +
                 ") AND redis_migrate.owner_name(t." + accepting.owner +
                 ") = pg_get_userbyid(c.relowner) AND NOT redis_migrate.is_restored(" +
                 accepting.definition_owner + ")");
  }
}

uint64 ChangeOwner(const Owned &owned, Oid role, const std::string &name) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(std::string("UPDATE redis_migrate.") + owned.table +
                          " SET owner = redis_migrate.stamp_owner($1)" + owned.with_owner + " WHERE " +
                          owned.is_named,
                      {SqlParam::OidOf(role), SqlParam::Text(name)})
      .processed();
}

// Makes restored rows this database's own, if the caller has the privileges of their owner.
uint64 Adopt(const Owned &owned, Oid user) {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute(std::string("UPDATE redis_migrate.") + owned.table +
                          " SET owner = redis_migrate.stamp_owner(redis_migrate.owner_oid(owner))" +
                          owned.with_owner +
                          R"sql( WHERE redis_migrate.is_restored(owner)
                                     AND pg_has_role($1, redis_migrate.owner_oid(owner), 'USAGE'))sql",
                      {SqlParam::OidOf(user)})
      .processed();
}

// The number of definitions that stay restored because they have no owner.
uint64 CountOwnerless() {
  pg::AsExtensionOwner as_owner;
  return Spi::Execute("SELECT FROM redis_migrate.definitions WHERE restored AND owner IS NULL").processed();
}

}  // namespace
}  // namespace prm::worker

using namespace prm;
using namespace prm::worker;

// redis_migrate.take_over(kind text, name text, new_owner name): see the SQL comment. Errors: 42501 not a
// superuser, 22023 no such kind, 42704 no such role or definition, 55006 while the migration is running.
PRM_FUNCTION(take_over) {
  std::string kind = pg::TextArgument(fcinfo, 0, "kind");
  std::string const name = pg::TextArgument(fcinfo, 1, "name");
  if (PG_ARGISNULL(2)) throw pg::Failure(ERRCODE_NULL_VALUE_NOT_ALLOWED, "new_owner must not be NULL");
  const char *new_owner = NameStr(*PG_GETARG_NAME(2));
  bool const is_superuser = pg::Call([] { return superuser(); });
  if (!is_superuser)
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE,
                      "only superusers may give a definition to another role");
  pg::CheckKeyword(kind, "kind",
                   {"migration", "background run", "audit", "expiry", "refresh", "rate limit", "lockout"});
  if (kind == "background run") kind = "migration";  // a run belongs to its migration
  Oid const role = pg::Call([&] { return get_role_oid(new_owner, false); });
  pg::Spi spi;
  pg::ClaimOwnership(role);
  if (kind == "migration") LockForChange(name);
  uint64 changed = 0;
  for (const Owned &owned : kOwned)
    if (kind == owned.kind) changed += ChangeOwner(owned, role, name);
  AcceptAs(role, kind, name);
  if (changed == 0)
    throw pg::Failure(ERRCODE_UNDEFINED_OBJECT, "there is no " + kind + " \"" + name + "\"", "",
                      "SELECT kind, name FROM redis_migrate.definitions lists the definitions.");
  PG_RETURN_VOID();
}

// redis_migrate.resume_restored(): see the SQL comment. Definitions without an owner are a WARNING.
PRM_FUNCTION(resume_restored) {
  Oid const user = GetUserId();
  pg::Spi spi;
  uint64 adopted = 0;
  const char *last = "";
  for (const Owned &owned : kOwned) {
    if (strcmp(owned.table, last) == 0) continue;
    last = owned.table;
    uint64 const rows = Adopt(owned, user);
    if (strcmp(owned.table, "run") != 0) adopted += rows;
  }
  AcceptRestored();
  pg::Report(NOTICE, std::to_string(adopted) + " restored definitions resume");
  bool const is_superuser = pg::Call([] { return superuser(); });
  uint64 const ownerless = is_superuser ? CountOwnerless() : 0;
  if (ownerless > 0)
    pg::Report(WARNING, std::to_string(ownerless) + " restored definitions have no owner, and do not resume",
               "SELECT kind, name, problem FROM redis_migrate.definitions shows them.",
               "SELECT redis_migrate.take_over(kind, name, '...') gives one to another role.");
  PG_RETURN_VOID();
}
