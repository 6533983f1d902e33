// One row of redis_batch, on its way into a tuple.
#pragma once

#include <array>

#include "mapping/batch_shape.h"
#include "mapping/batch_sink.h"
#include "mapping/jsonb_collector.h"
#include "pg/memory.h"
#include "pg/soft_input.h"
#include "rdb/value.h"

namespace prm {

// The content of a column. It points at what it shows, which must stay until the row is put.
struct Cell {
  enum Kind {
    kNull,
    kText,
    kBytea,
    kFields,
    kInt4,
    kInt8,
    kFloat8,
    kTimestamp,
    kJson,   // text that is still to be parsed
    kJsonb,  // a collection
    kInput,  // text for the input function of a capture's type
    kDatum   // what became of it: `integer`, which may point at memory that the row keeps
  } kind = kNull;
  Bytes bytes;
  int64_t integer = 0;
  double number = 0;
  const rdb::StreamFields *fields = nullptr;
  const JsonbCollector *collected = nullptr;
};

class BatchRow {
 public:
  // Why a row cannot be made.
  struct Problem {
    std::string rule;
    std::string message;
  };

  // needed: the columns that are filled. fields: the number of columns of type text behind them.
  BatchRow(const BatchShape &shape, const std::vector<bool> &needed, size_t fields, BatchSink &sink);

  // All columns become NULL.
  void Clear();

  // The columns of the shape that are filled.
  const std::vector<size_t> &columns() const { return columns_; }
  Cell &cell(size_t column) { return cells_[column]; }

  // For a content that is that of one column at most, so of no capture. If it is not needed, nothing is set.
  bool Needs(Content content) const { return PlaceOf(content) >= 0; }
  void Set(Content content, const Cell &cell) {
    if (int const place = PlaceOf(content); place >= 0) cells_[static_cast<size_t>(place)] = cell;
  }

  // Sets text of Redis. False: it is not text in the server's encoding.
  bool SetText(Content content, Cell::Kind kind, Bytes utf8);
  bool SetColumnText(size_t column, Cell::Kind kind, Bytes utf8);

  // Copies text of the server into the column of a field.
  void SetField(size_t field, Bytes text);

  // Puts the row as it is; its cells stay. Errors: 53200.
  std::optional<Problem> Put();

 private:
  static constexpr size_t kContents = static_cast<size_t>(Content::kDeliveryCount) + 1;

  int PlaceOf(Content content) const { return places_[static_cast<size_t>(content)]; }
  bool FitsIntoRow(size_t *bytes) const;
  std::optional<Problem> Convert();
  std::optional<Problem> ConvertJson(Bytes text, Datum *value);
  void ConvertCapture(size_t column);

  const BatchShape &shape_;
  BatchSink &sink_;
  pg::Context context_;
  pg::InputFunction jsonb_;
  struct Input {
    pg::InputFunction function;
    bool is_by_value;
  };
  std::map<size_t, Input> inputs_;  // of captures, by column
  std::vector<size_t> columns_;
  std::vector<size_t> filled_;  // these, and those of fields
  std::array<int, kContents> places_;
  std::vector<Cell> cells_;
  std::vector<std::string> texts_;  // what cells show of what had to be converted
  Datum *const values_;             // of the sink
  bool *const nulls_;
};

}  // namespace prm
