// The rows of redis_batch: entries of a batch, with their values decoded.
#pragma once

#include "mapping/batch_shape.h"
#include "mapping/batch_sink.h"
#include "pg/memory.h"
#include "pg/spi.h"
#include "pg/tuplestore.h"
#include "source/source.h"

namespace prm {

// Why an entry cannot be shown in the columns that the query names.
struct EntryProblem {
  int entry;
  bool is_element = false;  // only this element: the others have their rows
  std::string rule;  // invalid_json, json_too_large, empty_value, key_encoding, value_encoding, wrong_type,
                     // row_too_large, corrupt_payload, unsupported_payload
  std::string message;
};

struct FillOptions {
  const std::optional<std::vector<std::string>> &types;  // others, if given, are a problem
  bool by_element = false;    // with `expand`: a bad element is no problem of the others
  bool one_spelling = false;  // a capture that is not spelled as PostgreSQL prints it is a problem
  // Fields of hashes, for columns behind those of the shape: see NamedFields. Other values then have no rows.
  const std::vector<std::string> *fields = nullptr;
};

// Fills redis_batch with the entries in `which` (indexes into entries, which become the column entry).
// Only columns with needed[i] are filled. Entries with a problem get no row, unless it is that of an element.
// Errors: none for data, 53200, those of the sink.
std::vector<EntryProblem> FillBatch(const BatchShape &shape, const std::vector<bool> &needed,
                                    const std::vector<const source::Entry *> &entries,
                                    const std::vector<int> &which, const FillOptions &options,
                                    BatchSink &sink);

// Milliseconds from 1970 as PostgreSQL counts time; what its timestamps do not reach becomes their end.
TimestampTz ToTimestamp(int64_t unix_ms);

// The expiry of an entry as such a timestamptz; NULL for none.
pg::SqlParam ExpiryParam(const source::Entry &entry);

// Names and values of a stream's entry in turn, as bytea[], in the current memory context.
Datum StreamFieldsDatum(const rdb::StreamFields &fields);

}  // namespace prm
