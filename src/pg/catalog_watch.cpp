#include "pg/catalog_watch.h"

#include "pg/guard.h"

namespace prm::pg {

CatalogWatch *CatalogWatch::first_ = nullptr;

CatalogWatch::CatalogWatch() {
  Register();
  next_ = first_;
  if (first_ != nullptr) first_->previous_ = this;
  first_ = this;
}

CatalogWatch::~CatalogWatch() {
  if (next_ != nullptr) next_->previous_ = previous_;
  (previous_ != nullptr ? previous_->next_ : first_) = next_;
}

// Callbacks cannot be unregistered.
void CatalogWatch::Register() {
  static bool is_registered = false;
  if (is_registered) return;
  Call([] {
    CacheRegisterRelcacheCallback(OnRelation, 0);
    for (auto cache : {PROCOID, TYPEOID}) CacheRegisterSyscacheCallback(cache, OnItem, 0);
    for (auto cache : {NAMESPACEOID, OPEROID, AMOPOPID, COLLOID, FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID,
                       AUTHOID, AUTHMEMROLEMEM, DATABASEOID, ENUMOID})
      CacheRegisterSyscacheCallback(cache, OnRareChange, 0);
  });
  is_registered = true;
}

void CatalogWatch::AddRelation(Oid relation) { relations_.push_back(relation); }

void CatalogWatch::AddType(Oid type) {
  struct Parts {
    uint32 hash;
    Oid relation;  // of a composite type
    Oid element;   // of an array
    Oid base;      // of a domain
  };
  Parts const parts = Call([&] {
    Parts found = {GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(type)), InvalidOid, InvalidOid,
                   InvalidOid};
    HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
    if (!HeapTupleIsValid(tuple)) return found;
    auto *form = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple));
    found.relation = form->typrelid;
    found.element = IsTrueArrayType(form) ? form->typelem : InvalidOid;
    found.base = form->typbasetype;
    ReleaseSysCache(tuple);
    return found;
  });
  items_.emplace_back(TYPEOID, parts.hash);
  if (OidIsValid(parts.relation)) AddRelation(parts.relation);
  for (Oid const part : {parts.element, parts.base})
    if (OidIsValid(part)) AddType(part);
}

void CatalogWatch::AddItems(List *items) {
  for (int i = 0; i < list_length(items); ++i) {
    auto *item = static_cast<PlanInvalItem *>(list_nth(items, i));
    items_.emplace_back(item->cacheId, item->hashValue);
  }
}

// An invalid OID, or the hash 0, stands for all.

void CatalogWatch::OnRelation(Datum, Oid relation) noexcept {
  for (CatalogWatch *watch = first_; watch != nullptr; watch = watch->next_)
    if (!watch->is_narrow_ || watch->all_relations_ || !OidIsValid(relation) ||
        std::find(watch->relations_.begin(), watch->relations_.end(), relation) != watch->relations_.end())
      watch->changed_ = true;
}

void CatalogWatch::OnItem(Datum, CatalogCache cache, uint32 hash) noexcept {
  std::pair<int, uint32> const item(cache, hash);
  for (CatalogWatch *watch = first_; watch != nullptr; watch = watch->next_)
    if (!watch->is_narrow_ || hash == 0 ||
        std::find(watch->items_.begin(), watch->items_.end(), item) != watch->items_.end())
      watch->changed_ = true;
}

void CatalogWatch::OnRareChange(Datum, CatalogCache, uint32) noexcept {
  for (CatalogWatch *watch = first_; watch != nullptr; watch = watch->next_) watch->changed_ = true;
}

}  // namespace prm::pg
