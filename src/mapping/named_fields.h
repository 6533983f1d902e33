// The fields of hashes that a query names as json->>'name', as columns of redis_batch of their own: most
// queries over hashes read nothing else of json, which then need not be made, nor searched.
#pragma once

#include "mapping/catalog.h"
#include "pg/pg.h"

namespace prm {

// A query that reads columns behind those of redis_batch, each of type text with the value of a field, or
// NULL where the hash has no such field.
struct NamedFields {
  Query *query;                     // a copy
  std::vector<std::string> fields;  // their names as text of the server, in the order of their columns
};

// Replaces json->>'name' in an analysed query over redis_batch, which has so many columns; json is the one
// with that number. Whatever else of json the query reads stays as it is. Nothing: there is nothing to
// replace.
std::optional<NamedFields> NameFields(Query *query, int columns, AttrNumber json);

// The columns behind those of redis_batch.
TupleDesc AddFieldColumns(TupleDesc batch, size_t fields);

}  // namespace prm
