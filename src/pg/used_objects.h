// What SQL uses of objects that are not PostgreSQL's own.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

// Lists in the memory context in which they are made.
struct UsedObjects {
  List *relations = NIL;  // OIDs of those it reads or writes, below views as well
  List *functions = NIL;  // OIDs, those of operators, aggregates and casts too
  List *types = NIL;      // OIDs of those that values are turned into
  List *items = NIL;      // PlanInvalItem: the functions and domains again, as a plan depends on them

  bool IsEmpty() const { return relations == NIL && functions == NIL && types == NIL; }

  // Adds those of an analysed and rewritten query.
  void Add(Query *query);
  // Adds those of a statement of which PostgreSQL knows the parameters' types. It is analysed, and neither
  // planned nor run. That calls the input functions of types alone, for constants: the checks of a domain
  // inside an array or a composite type run, too. Needs SPI. Errors: those of the analysis.
  void Add(const std::string &sql, std::initializer_list<Oid> parameters = {});
};

}  // namespace prm::pg
