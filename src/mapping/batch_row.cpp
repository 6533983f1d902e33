#include "mapping/batch_row.h"

#include "mapping/batch_relation.h"
#include "pg/encoding.h"

namespace prm {

namespace {

constexpr size_t kContextLimit = 1024 * 1024;
constexpr size_t kArrayOverhead = 8;                        // of an element
constexpr size_t kLargestRow = MaxAllocSize - 1024 * 1024;  // with its headers

}  // namespace

BatchRow::BatchRow(const BatchShape &shape, const std::vector<bool> &needed, size_t fields, BatchSink &sink)
    : shape_(shape),
      sink_(sink),
      context_("redis_batch row"),
      jsonb_(JSONBOID),
      cells_(shape.columns().size() + fields),
      texts_(cells_.size()),
      values_(sink.values()),
      nulls_(sink.nulls()) {
  places_.fill(-1);
  for (size_t i = 0; i < shape.columns().size(); ++i) {
    if (!needed[i]) continue;
    columns_.push_back(i);
    Oid const type = shape.columns()[i].type;
    if (shape.columns()[i].content == Content::kCapture && type != TEXTOID)
      inputs_.emplace(i, Input{pg::InputFunction(type), pg::Call([&] { return get_typbyval(type); })});
    places_[static_cast<size_t>(shape.columns()[i].content)] = static_cast<int>(i);
  }
  filled_ = columns_;
  for (size_t i = shape.columns().size(); i < cells_.size(); ++i) filled_.push_back(i);
}

void BatchRow::Clear() {
  for (size_t const i : filled_) cells_[i] = Cell();
}

bool BatchRow::SetText(Content content, Cell::Kind kind, Bytes utf8) {
  int const place = PlaceOf(content);
  return place < 0 || SetColumnText(static_cast<size_t>(place), kind, utf8);
}

bool BatchRow::SetColumnText(size_t column, Cell::Kind kind, Bytes utf8) {
  const std::optional<Bytes> text = pg::TextFromUtf8(utf8, texts_[column]);
  cells_[column] = {kind, text.value_or(Bytes())};
  return text.has_value();
}

void BatchRow::SetField(size_t field, Bytes text) {
  size_t const column = shape_.columns().size() + field;
  std::string &held = texts_[column];
  held.assign(VARHDRSZ, '\0').append(text);
  SET_VARSIZE(held.data(), held.size());
  cells_[column] = {Cell::kDatum, Bytes(held).substr(VARHDRSZ),
                    static_cast<int64_t>(PointerGetDatum(held.data()))};
}

std::optional<BatchRow::Problem> BatchRow::Put() {
  size_t bytes;
  if (!FitsIntoRow(&bytes))
    return Problem{"row_too_large", "the columns of redis_batch that the query names have " +
                                        std::to_string(bytes) + " bytes"};
  pg::SwitchContext in_context(context_.get());
  if (std::optional<Problem> problem = Convert()) return problem;
  const size_t *const columns = filled_.data();
  size_t const count = filled_.size();
  pg::Call([&] {
    for (size_t at = 0; at < count; ++at) {
      size_t const i = columns[at];
      const Cell &cell = cells_[i];
      nulls_[i] = cell.kind == Cell::kNull;
      switch (cell.kind) {
        case Cell::kNull:
          values_[i] = 0;
          break;
        case Cell::kText:
        case Cell::kBytea:
          values_[i] = PointerGetDatum(
              cstring_to_text_with_len(cell.bytes.data(), static_cast<int>(cell.bytes.size())));
          break;
        case Cell::kInt4:
          values_[i] = Int32GetDatum(static_cast<int32>(cell.integer));
          break;
        case Cell::kInt8:
          values_[i] = Int64GetDatum(cell.integer);
          break;
        case Cell::kFloat8:
          values_[i] = Float8GetDatum(cell.number);
          break;
        case Cell::kTimestamp:
          values_[i] = TimestampTzGetDatum(cell.integer);
          break;
        case Cell::kDatum:
          values_[i] = static_cast<Datum>(cell.integer);
          break;
        case Cell::kFields:
        case Cell::kJson:
        case Cell::kJsonb:
        case Cell::kInput:
          break;  // converted already
      }
    }
    sink_.Put();
  });
  if (MemoryContextMemAllocated(context_.get(), false) > kContextLimit) context_.Reset();
  return std::nullopt;
}

// PostgreSQL holds a row in one piece of memory.
bool BatchRow::FitsIntoRow(size_t *bytes) const {
  *bytes = 0;
  for (size_t const i : filled_) {
    const Cell &cell = cells_[i];
    *bytes += cell.bytes.size();
    if (cell.fields == nullptr) continue;
    for (const auto &[field, value] : *cell.fields)
      *bytes += field.size() + value.size() + 2 * kArrayOverhead;
  }
  return *bytes < kLargestRow;
}

// Runs the input functions: the only conversions that data can make fail.
std::optional<BatchRow::Problem> BatchRow::Convert() {
  for (size_t const i : columns_) {
    const Cell &cell = cells_[i];
    if (cell.kind == Cell::kJson) {
      if (std::optional<Problem> problem = ConvertJson(cell.bytes, &values_[i])) return problem;
    } else if (cell.kind == Cell::kJsonb) {
      values_[i] = cell.collected->ToJsonb();
    } else if (cell.kind == Cell::kFields) {
      values_[i] = StreamFieldsDatum(*cell.fields);
    } else if (cell.kind == Cell::kInput) {
      ConvertCapture(i);
    }
  }
  return std::nullopt;
}

// The text fits the capture's type (core/capture_type.h), so its input function takes it.
void BatchRow::ConvertCapture(size_t column) {
  Cell &cell = cells_[column];
  const BatchColumn &facts = shape_.columns()[column];
  auto &[input, is_by_value] = inputs_.at(column);
  if (facts.capture_type == CaptureType::kMonth) {
    std::string value(cell.bytes);
    value += value.size() == 7 ? "-01" : "01";  // a month is its first day
    values_[column] = input.Convert(value);
  } else {
    values_[column] = input.Convert(cell.bytes);
  }
  if (!is_by_value) return;
  cell.kind = Cell::kDatum;  // the elements of a key share it
  cell.integer = static_cast<int64_t>(values_[column]);
}

std::optional<BatchRow::Problem> BatchRow::ConvertJson(Bytes text, Datum *value) {
  std::string message;
  int sqlstate = 0;
  if (jsonb_.TryConvert(text, value, &message, &sqlstate)) return std::nullopt;
  // An escape, such as \u0000, of a character that the server cannot hold.
  const bool is_encoding =
      sqlstate == ERRCODE_UNTRANSLATABLE_CHARACTER || sqlstate == ERRCODE_FEATURE_NOT_SUPPORTED;
  return Problem{sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED ? "json_too_large"
                 : is_encoding                              ? "value_encoding"
                                                            : "invalid_json",
                 message};
}

}  // namespace prm
