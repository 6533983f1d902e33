#include "pg/identity.h"

#include "pg/guard.h"

namespace prm::pg {
namespace {

struct InstalledExtension {
  Oid id = InvalidOid;
  Oid owner = InvalidOid;
};

// pg_extension has no syscache. C++-free: called inside a guard.
InstalledExtension FindExtension() {
  Relation relation = table_open(ExtensionRelationId, AccessShareLock);
  ScanKeyData key;
  ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
              CStringGetDatum("pg_redis_migrate"));
  SysScanDesc scan = systable_beginscan(relation, ExtensionNameIndexId, true, nullptr, 1, &key);
  HeapTuple tuple = systable_getnext(scan);
  InstalledExtension found;
  if (HeapTupleIsValid(tuple)) {
    auto *row = reinterpret_cast<Form_pg_extension>(GETSTRUCT(tuple));
    found = {row->oid, row->extowner};
  }
  systable_endscan(scan);
  table_close(relation, AccessShareLock);
  return found;
}

// The owner of the extension, locked against DROP until the end of the transaction. DROP EXTENSION locks the
// extension before its members, so taking this lock before any table of the extension prevents deadlocks.
Oid LockExtension() {
  return Call([] {
    InstalledExtension extension = FindExtension();
    while (OidIsValid(extension.id)) {
      uint64 const seen = SharedInvalidMessageCounter;
      LockDatabaseObject(ExtensionRelationId, extension.id, 0, AccessShareLock);
      if (seen == SharedInvalidMessageCounter) return extension.owner;
      Oid const locked = extension.id;
      extension = FindExtension();
      if (extension.id == locked) return extension.owner;
    }
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("extension pg_redis_migrate does not exist"),
                    errhint("CREATE EXTENSION pg_redis_migrate makes it.")));
    return InvalidOid;
  });
}

void SetLocal(const char *name, const char *value) {
  Call([&] {
    (void)set_config_option(name, value, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION,
                            GUC_ACTION_SAVE, true, 0, false);
  });
}

}  // namespace

AsExtensionOwner::AsExtensionOwner() {
  Oid owner = LockExtension();
  GetUserIdAndSecContext(&user_, &security_context_);
  guc_nest_ = NewGUCNestLevel();
  SetLocal("search_path", "pg_catalog, pg_temp");
  SetUserIdAndSecContext(owner, security_context_ | SECURITY_LOCAL_USERID_CHANGE);
}

AsExtensionOwner::~AsExtensionOwner() {
  // After an error the abort of the (sub)transaction restores the settings. The user is restored in any case.
  SetUserIdAndSecContext(user_, security_context_);
  if (!unwinds()) AtEOXact_GUC(true, guc_nest_);
}

LocalSettings::LocalSettings() : guc_nest_(NewGUCNestLevel()) {}

LocalSettings::~LocalSettings() {
  if (!unwinds()) AtEOXact_GUC(true, guc_nest_);
}

void LocalSettings::Set(const char *name, const std::string &value) { SetLocal(name, value.c_str()); }

}  // namespace prm::pg
