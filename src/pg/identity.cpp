#include "pg/identity.h"

#include <cstring>

#include "pg/catalog_watch.h"
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

struct FoundExtension {
  CatalogWatch watch;  // begins before it is looked for
  InstalledExtension extension = Call([] { return FindExtension(); });
};

// The owner of the extension, locked against DROP until the end of the transaction. DROP EXTENSION locks the
// extension before its members, so taking this lock before any table of the extension prevents deadlocks.
Oid LockExtension() {
  static FoundExtension *found = nullptr;
  for (Oid locked = InvalidOid;;) {
    if (found == nullptr || found->watch.changed()) {
      delete std::exchange(found, nullptr);
      found = new FoundExtension;
    }
    InstalledExtension const extension = found->extension;
    if (!OidIsValid(extension.id))
      throw Failure(ERRCODE_UNDEFINED_OBJECT, "extension pg_redis_migrate does not exist", "",
                    "CREATE EXTENSION pg_redis_migrate makes it.");
    if (extension.id == locked) return extension.owner;
    Call([&] { LockDatabaseObject(ExtensionRelationId, extension.id, 0, AccessShareLock); });
    if (!found->watch.changed()) return extension.owner;
    locked = extension.id;
  }
}

void SetSetting(const char *name, const char *value, GucAction action) {
  Call([&] {
    const char *present = GetConfigOption(name, true, false);
    if (present != nullptr && strcmp(present, value) == 0) return;
    (void)set_config_option(name, value, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION, action, true,
                            0, false);
  });
}

}  // namespace

void SetForTransaction(const char *name, const char *value) { SetSetting(name, value, GUC_ACTION_LOCAL); }

AsExtensionOwner::AsExtensionOwner() {
  Oid owner = LockExtension();
  GetUserIdAndSecContext(&user_, &security_context_);
  guc_nest_ = NewGUCNestLevel();
  SetSetting("search_path", "pg_catalog, pg_temp", GUC_ACTION_SAVE);
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

void LocalSettings::Set(const char *name, const std::string &value) {
  SetSetting(name, value.c_str(), GUC_ACTION_SAVE);
}

}  // namespace prm::pg
