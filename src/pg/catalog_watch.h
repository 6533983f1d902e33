// Whether something that was made from the system catalogs, such as a plan, still holds.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Sees changes as this process does: with the locks that it takes, and when a transaction begins. So lock the
// relations first, and ask then.
class CatalogWatch {
 public:
  // Until Narrow is called every change counts, because what is read from the catalogs meanwhile may be older
  // than the change.
  CatalogWatch();
  ~CatalogWatch();
  CatalogWatch(const CatalogWatch &) = delete;
  CatalogWatch &operator=(const CatalogWatch &) = delete;

  void AddRelation(Oid relation);
  // Adds all relations, if it is not known which ones matter.
  void AddAllRelations() { all_relations_ = true; }
  // Adds a type with the types that it consists of.
  void AddType(Oid type);
  // Adds what a plan depends on besides relations: PlannedStmt::invalItems.
  void AddItems(List *items);

  // From now on changes of what was not added do not count. Those of schemas, operators, collations, foreign
  // servers and wrappers, roles and databases always do.
  void Narrow() { is_narrow_ = true; }

  bool changed() const { return changed_; }

 private:
  static void Register();
  static void OnRelation(Datum, Oid relation) noexcept;
  static void OnItem(Datum, CatalogCache cache, uint32 hash) noexcept;
  static void OnRareChange(Datum, CatalogCache, uint32) noexcept;

  static CatalogWatch *first_;

  CatalogWatch *previous_ = nullptr;
  CatalogWatch *next_;
  bool changed_ = false;
  bool is_narrow_ = false;
  bool all_relations_ = false;
  std::vector<Oid> relations_;
  std::vector<std::pair<int, uint32>> items_;  // cache and hash
};

}  // namespace prm::pg
