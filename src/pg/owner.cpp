#include "pg/owner.h"

#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/guard.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm::pg {
namespace {

// A value of type redis_migrate.owner_role.
struct StoredOwner {
  int32 length_word;
  Oid role;
  Oid database;
  pg_uuid_t installation;
  char name[FLEXIBLE_ARRAY_MEMBER];  // without a zero at its end
};

constexpr char kGrantTable[] = "definition_owners";

Oid OurRelation(const char *name) {
  return Call([&] { return get_relname_relid(name, get_namespace_oid("redis_migrate", true)); });
}

pg_uuid_t ParseUuid(const char *text) {
  return *Call([&] { return DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text))); });
}

std::string UuidText(const pg_uuid_t &uuid) {
  return Call([&] { return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&uuid))); });
}

// The number that CREATE EXTENSION gave this installation, read from the body of
// redis_migrate.installation(): system caches can be read everywhere, even during logical decoding.
pg_uuid_t Installation() {
  const char *body = Call([]() -> const char * {
    oidvector *no_arguments = buildoidvector(nullptr, 0);
    HeapTuple tuple =
        SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum("installation"), PointerGetDatum(no_arguments),
                        ObjectIdGetDatum(get_namespace_oid("redis_migrate", false)));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "function redis_migrate.installation() does not exist");
    bool is_null = false;
    Datum source = SysCacheGetAttr(PROCNAMEARGSNSP, tuple, Anum_pg_proc_prosrc, &is_null);
    char *source_text = is_null ? pstrdup("") : TextDatumGetCString(source);
    ReleaseSysCache(tuple);
    return source_text;
  });
  std::string const text = body;
  size_t const begin = text.find('\''), end = text.find('\'', begin + 1);
  if (begin == std::string::npos || end == std::string::npos)
    throw Failure(ERRCODE_DATA_CORRUPTED, "function redis_migrate.installation() was changed");
  return ParseUuid(text.substr(begin + 1, end - begin - 1).c_str());
}

std::optional<std::string> RoleName(Oid role) {
  const char *name = Call([&] { return GetUserNameFromId(role, true); });
  if (name == nullptr) return std::nullopt;
  return name;
}

// The first column of the table of grants that is granted to a role (InvalidOid: to no role); 0 for none. A
// column has at most one grantee: pg_restore runs the grants of a column as one command, and a missing role
// must not lose the grants of others.
AttrNumber ColumnOf(Oid role) {
  Oid const table = OurRelation(kGrantTable);
  return Call([&]() -> AttrNumber {
    for (AttrNumber column = 1;; ++column) {
      HeapTuple tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(table), Int16GetDatum(column));
      if (!HeapTupleIsValid(tuple)) return 0;
      bool is_null = false, is_found = false;
      Datum acl = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attacl, &is_null);
      if (is_null) {
        is_found = !OidIsValid(role);
      } else {
        Acl *list = DatumGetAclP(acl);
        is_found = ACL_NUM(list) == 0 && !OidIsValid(role);
        for (int i = 0; i < ACL_NUM(list); ++i)
          is_found = is_found || (OidIsValid(role) && ACL_DAT(list)[i].ai_grantee == role);
      }
      ReleaseSysCache(tuple);
      if (is_found) return column;
    }
  });
}

// Whether a role may own definitions. The owner of the table needs no grant: it owns the extension.
bool IsGranted(Oid role) {
  Oid const table = OurRelation(kGrantTable);
  bool const is_owner = Call([&] {
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
    if (!HeapTupleIsValid(tuple)) return false;
    bool owns = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner == role;
    ReleaseSysCache(tuple);
    return owns;
  });
  return is_owner || ColumnOf(role) != 0;
}

void LockRole(Oid role, LOCKMODE mode) {
  Call([&] { LockSharedObject(AuthIdRelationId, role, 0, mode); });
}

// Two transactions that change the grants concurrently would fail.
void LockGrants() {
  Oid const table = OurRelation(kGrantTable);
  Call([&] { LockRelationOid(table, ShareRowExclusiveLock); });
}

}  // namespace

Owner::Owner(Datum stored) {
  auto *value = reinterpret_cast<StoredOwner *>(Call([&] { return PG_DETOAST_DATUM(stored); }));
  role_ = value->role;
  database_ = value->database;
  installation_ = value->installation;
  name_.assign(value->name, VARSIZE(value) - offsetof(StoredOwner, name));
}

Owner Owner::Of(Oid role) {
  Owner owner;
  owner.role_ = role;
  owner.database_ = MyDatabaseId;
  owner.installation_ = Installation();
  owner.name_ = RoleName(role).value_or("");
  return owner;
}

Datum Owner::ToDatum() const {
  size_t const size = offsetof(StoredOwner, name) + name_.size();
  auto *value = static_cast<StoredOwner *>(Call([&] { return palloc0(size); }));
  SET_VARSIZE(value, size);
  value->role = role_;
  value->database = database_;
  value->installation = installation_;
  memcpy(value->name, name_.data(), name_.size());
  return PointerGetDatum(value);
}

// Writes the current name, for the dump, and no role if the owner was stored elsewhere and does not exist
// here.
std::string Owner::ToText() const {
  return name() + "/" + std::to_string(role_) + "/" + std::to_string(database_) + "/" +
         UuidText(installation_);
}

Owner Owner::FromText(const std::string &text) {
  Owner owner;
  size_t const installation = text.rfind('/');
  size_t const database =
      installation == std::string::npos ? installation : text.rfind('/', installation - 1);
  size_t const role = database == std::string::npos ? database : text.rfind('/', database - 1);
  auto number = [&](size_t begin, size_t end) {
    std::string const digits = text.substr(begin + 1, end - begin - 1);
    if (digits.empty() || digits.size() > 10 || digits.find_first_not_of("0123456789") != std::string::npos)
      return uint64{1} << 32;
    return static_cast<uint64>(std::stoull(digits));
  };
  uint64 const role_number = role == std::string::npos ? uint64{1} << 32 : number(role, database);
  uint64 const database_number = role == std::string::npos ? uint64{1} << 32 : number(database, installation);
  if (role_number > UINT32_MAX || database_number > UINT32_MAX || role >= NAMEDATALEN)
    throw Failure(ERRCODE_INVALID_TEXT_REPRESENTATION,
                  "invalid input syntax for type redis_migrate.owner_role");
  owner.name_ = text.substr(0, role);
  owner.role_ = static_cast<Oid>(role_number);
  owner.database_ = static_cast<Oid>(database_number);
  owner.installation_ = ParseUuid(text.c_str() + installation + 1);
  return owner;
}

bool Owner::is_local() const {
  pg_uuid_t const here = Installation();
  return database_ == MyDatabaseId && memcmp(&here, &installation_, sizeof here) == 0;
}

Oid Owner::Find() const {
  if (is_local()) return RoleName(role_) ? role_ : InvalidOid;
  return Call([&] { return get_role_oid(name_.c_str(), true); });
}

Oid Owner::role() const {
  Oid const found = Find();
  return OidIsValid(found) && IsGranted(found) ? found : InvalidOid;
}

Oid Owner::viewer() const { return is_local() ? Find() : role(); }

bool Owner::Is(Oid role) const {
  return is_local() ? role_ == role : name_ == (OidIsValid(role) ? RoleName(role).value_or("") : "");
}

std::string Owner::problem() const {
  Oid const found = Find();
  if (!OidIsValid(found)) return "its owner, role \"" + name_ + "\", does not exist";
  if (!IsGranted(found))
    return "its owner, role \"" + name() +
           "\", has no grant on redis_migrate.definition_owners: it was not restored, "
           "or DROP OWNED revoked it";
  return "";
}

std::string Owner::name() const {
  if (!OidIsValid(role_) || !is_local()) return name_;
  return RoleName(role_).value_or(name_);
}

void ClaimOwnership(Oid role) {
  // The weak lock suffices if the role already has the grant: revoking the grant takes a stronger one.
  LockRole(role, RowShareLock);
  if (IsGranted(role)) return;
  AsExtensionOwner as_owner;
  LockGrants();
  AttrNumber const column = ColumnOf(InvalidOid);
  if (column == 0)
    throw Failure(
        ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many roles own definitions of pg_redis_migrate in this database",
        "Each has a column of table redis_migrate.definition_owners.",
        "Let roles share an owner: GRANT a common role to them, and SET ROLE to it before you define "
        "something. SELECT DISTINCT owner FROM redis_migrate.definitions lists the owners.");
  Spi spi;
  Spi::Execute("GRANT SELECT (owner_" + std::to_string(column) + ") ON redis_migrate.definition_owners TO " +
               QuoteIdentifier(RoleName(role).value_or("")));
  Call([] { CommandCounterIncrement(); });
}

bool HasOwnerRights(const Owner &owner, Oid user) {
  if (Call([&] { return superuser_arg(user); })) return true;
  Oid const role = owner.role();
  return OidIsValid(role) && Call([&] { return has_privs_of_role(user, role); });
}

std::string OwnerDetail(const Owner &owner) {
  std::string const problem = owner.problem();
  return problem.empty() ? "Its owner is " + QuoteIdentifier(owner.name()) + "."
                         : "It has none: " + problem + ".";
}

std::string OwnerHint(const Owner &owner, const std::string &kind, const std::string &name) {
  Oid const role = owner.role();
  if (OidIsValid(role) && Call([&] { return superuser_arg(role); })) return "";
  if (OidIsValid(role)) return "SET ROLE " + QuoteIdentifier(owner.name()) + ".";
  return "A superuser can give it to another role: SELECT redis_migrate.take_over(" + QuoteLiteral(kind) +
         ", " + QuoteLiteral(name) + ", '...').";
}

}  // namespace prm::pg

using namespace prm;
using pg::Owner;

// Input and output of redis_migrate.owner_role: name/role/database/installation. Errors: 22P02.
PRM_FUNCTION(owner_role_in) { return Owner::FromText(PG_GETARG_CSTRING(0)).ToDatum(); }

PRM_FUNCTION(owner_role_out) {
  std::string const written = Owner(PG_GETARG_DATUM(0)).ToText();
  return CStringGetDatum(pg::CString(written));
}

// redis_migrate.stamp_owner(role oid): the role as an owner in this database.
PRM_FUNCTION(stamp_owner) { return Owner::Of(PG_GETARG_OID(0)).ToDatum(); }

// redis_migrate.stamped_role(owner_role): the OID as it was stored, for indexes.
PRM_FUNCTION(stamped_role) { return ObjectIdGetDatum(Owner(PG_GETARG_DATUM(0)).stored_role()); }

// redis_migrate.owner_oid(owner_role): the role that owns a definition; NULL for none.
PRM_FUNCTION(owner_oid) {
  Oid const role = Owner(PG_GETARG_DATUM(0)).role();
  if (!OidIsValid(role)) PG_RETURN_NULL();
  return ObjectIdGetDatum(role);
}

// redis_migrate.acting_role(owner_role): the role as which workers run a definition; NULL for none, also
// while it waits for resume_restored.
PRM_FUNCTION(acting_role) {
  Owner const owner(PG_GETARG_DATUM(0));
  Oid const role = owner.is_local() ? owner.role() : InvalidOid;
  if (!OidIsValid(role)) PG_RETURN_NULL();
  return ObjectIdGetDatum(role);
}

// redis_migrate.is_restored(owner_role): whether another database or installation stored it.
PRM_FUNCTION(is_restored) { PG_RETURN_BOOL(!Owner(PG_GETARG_DATUM(0)).is_local()); }

// redis_migrate.owner_name(owner_role), owner_problem(owner_role): see Owner.
PRM_FUNCTION(owner_name) { return pg::TextDatum(Owner(PG_GETARG_DATUM(0)).name()); }

PRM_FUNCTION(owner_problem) {
  std::string const problem = Owner(PG_GETARG_DATUM(0)).problem();
  if (problem.empty()) PG_RETURN_NULL();
  return pg::TextDatum(problem);
}

// redis_migrate.shown_owner(owner_role): see the SQL comment; NULL for a role that does not exist.
PRM_FUNCTION(shown_owner) {
  Oid const viewer = Owner(PG_GETARG_DATUM(0)).viewer();
  if (!OidIsValid(viewer)) PG_RETURN_NULL();
  return ObjectIdGetDatum(viewer);
}

// redis_migrate.may_see(owner_role): whether the caller has the privileges of an owner, or is a superuser.
PRM_FUNCTION(may_see) {
  Oid const user = GetUserId();
  if (pg::Call([&] { return superuser_arg(user); })) PG_RETURN_BOOL(true);
  Oid const viewer = Owner(PG_GETARG_DATUM(0)).viewer();
  PG_RETURN_BOOL(OidIsValid(viewer) && pg::Call([&] { return has_privs_of_role(user, viewer); }));
}

// Row trigger of definition tables: revokes the grant of a role with its last definition, so that the role
// can be dropped. Errors: 39P01 when it is called otherwise. Everybody may make triggers with it on tables of
// his own, whose columns are not those of ours.
PRM_FUNCTION(release_owner) {
  auto *data = reinterpret_cast<TriggerData *>(fcinfo->context);
  if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
      RelationGetNamespace(data->tg_relation) !=
          pg::Call([] { return get_namespace_oid("redis_migrate", false); }))
    throw pg::Failure(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                      "release_owner is a row trigger of the tables of definitions");
  Datum const stored = pg::Call([&] {
    bool is_null = false;
    return SPI_getbinval(data->tg_trigtuple, data->tg_relation->rd_att,
                         SPI_fnumber(data->tg_relation->rd_att, "owner"), &is_null);
  });
  Oid const role = Owner(stored).role();
  pg::AsExtensionOwner as_owner;
  if (!OidIsValid(role) || role == GetUserId()) return Datum{0};
  pg::Spi spi;
  auto owns_something = [&] {
    pg::Call([] { CommandCounterIncrement(); });
    pg::LatestSnapshotScope snapshot;
    return pg::Spi::Execute("SELECT FROM redis_migrate.definitions WHERE owner = $1 LIMIT 1",
                            {pg::SqlParam::OidOf(role)}, true)
               .size() > 0;
  };
  if (owns_something()) return Datum{0};
  // Waits for transactions that are adding a definition for this role.
  pg::LockRole(role, ExclusiveLock);
  if (owns_something()) return Datum{0};
  pg::LockGrants();
  pg::Spi::Execute("REVOKE SELECT ON redis_migrate.definition_owners FROM " +
                   pg::QuoteIdentifier(pg::RoleName(role).value_or("")));
  return Datum{0};
}
