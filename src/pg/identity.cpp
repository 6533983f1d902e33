#include "pg/identity.h"

#include "pg/guard.h"

namespace prm::pg {
namespace {

// The owner of the schema that the extension created; a syscache lookup, no SQL.
Oid ExtensionOwner() {
  return Call([] {
    Oid schema = get_namespace_oid("redis_migrate", false);
    HeapTuple tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for schema %u", schema);
    bool null;
    Oid owner = DatumGetObjectId(SysCacheGetAttr(NAMESPACEOID, tuple, Anum_pg_namespace_nspowner, &null));
    ReleaseSysCache(tuple);
    return owner;
  });
}

void SetLocal(const char *name, const char *value) {
  Call([&] {
    (void)set_config_option(name, value, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
                            GUC_ACTION_SAVE, true, 0, false);
  });
}

}  // namespace

AsExtensionOwner::AsExtensionOwner() : exceptions_(std::uncaught_exceptions()) {
  Oid owner = ExtensionOwner();
  GetUserIdAndSecContext(&user_, &security_context_);
  guc_nest_ = NewGUCNestLevel();
  SetLocal("search_path", "pg_catalog, pg_temp");
  SetUserIdAndSecContext(owner, security_context_ | SECURITY_LOCAL_USERID_CHANGE);
}

AsExtensionOwner::~AsExtensionOwner() {
  // After an error the abort of the (sub)transaction restores the settings; the user is restored either way.
  SetUserIdAndSecContext(user_, security_context_);
  if (std::uncaught_exceptions() == exceptions_) AtEOXact_GUC(true, guc_nest_);
}

LocalSettings::LocalSettings() : guc_nest_(NewGUCNestLevel()), exceptions_(std::uncaught_exceptions()) {}

LocalSettings::~LocalSettings() {
  if (std::uncaught_exceptions() == exceptions_) AtEOXact_GUC(true, guc_nest_);
}

void LocalSettings::Set(const char *name, const std::string &value) { SetLocal(name, value.c_str()); }

}  // namespace prm::pg
