#include "mapping/batch_relation.h"

#include "mapping/jsonb_collector.h"
#include "pg/encoding.h"
#include "pg/soft_input.h"
#include "pg/time.h"
#include "rdb/json.h"

namespace prm {
namespace {

constexpr int64_t kOrdinalStep = 1024;

// A value on its way into a tuple.
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
    kJson,
    kJsonb,
    kInput
  } kind = kNull;
  Bytes bytes;
  int64_t integer = 0;
  double number = 0;
  const rdb::StreamFields *fields = nullptr;
  const JsonbCollector *collected = nullptr;
};

}  // namespace

Datum StreamFieldsDatum(const rdb::StreamFields &fields) {
  std::vector<Datum> elements;
  for (const auto &[field, value] : fields) {
    elements.push_back(pg::ByteaDatum(field));
    elements.push_back(pg::ByteaDatum(value));
  }
  return pg::Call([&] {
    return PointerGetDatum(construct_array(elements.data(), static_cast<int>(elements.size()), BYTEAOID, -1,
                                           false, TYPALIGN_INT));
  });
}

TimestampTz ToTimestamp(int64_t unix_ms) {
  // Damaged data may say anything.
  return pg::FromUnixMs(std::clamp<int64_t>(unix_ms, 0, source::kLatestExpiryMs));
}

pg::SqlParam ExpiryParam(const source::Entry &entry) {
  if (!entry.expires_at_ms) return {TIMESTAMPTZOID, 0, true};
  return {TIMESTAMPTZOID, TimestampTzGetDatum(ToTimestamp(*entry.expires_at_ms)), false};
}

namespace {

// Makes the rows of one entry after another.
class Filler : public rdb::ValueVisitor {
 public:
  Filler(const BatchShape &shape, const std::vector<bool> &needed, const FillOptions &options, TupleDesc desc,
         pg::Tuplestore &rows)
      : shape_(shape),
        needed_(needed),
        options_(options),
        desc_(desc),
        rows_(rows),
        context_("redis_batch row"),
        jsonb_(JSONBOID) {
    cells_.resize(shape.columns().size());
    texts_.resize(cells_.size());
    values_.resize(cells_.size());
    nulls_ = std::make_unique<bool[]>(cells_.size());
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (!needed[i]) continue;
      Content content = shape.columns()[i].content;
      if (content == Content::kCapture) needs_captures_ = true;
      if (content >= Content::kField || content == Content::kValue || content == Content::kValueBytes ||
          content == Content::kJson)
        needs_value_ = true;
      if (content == Content::kJson) needs_json_ = true;
      if (content == Content::kFieldsBytes) needs_fields_ = true;
    }
    if (shape.expand() != Expand::kNone) needs_value_ = true;
  }

  // Makes the rows of an entry and notes its problems.
  void Fill(int number, const source::Entry &entry, std::vector<EntryProblem> &problems) {
    EntryProblem problem;
    problem_ = &problem;
    problem.entry = number;
    entry_ = &entry;
    position_ = 0;
    rows_put_ = 0;
    bad_elements_.clear();
    if (FillRows(number)) {
      // If no element is good, the problem of the first bad one becomes that of the key.
      if (rows_put_ == 0 && !bad_elements_.empty()) bad_elements_ = {bad_elements_.front()};
      for (EntryProblem &element : bad_elements_) {
        element.is_element = rows_put_ > 0;
        problems.push_back(std::move(element));
      }
    } else {
      problems.push_back(std::move(problem));
    }
  }

 private:
  bool FillRows(int number) {
    Result<rdb::ValueType> type = source::TypeOf(*entry_);
    if (!type.ok()) return RefusePayload(type.error());
    type_ = type.value();
    if (!TypeAllowed(options_.types)) return false;
    std::fill(cells_.begin(), cells_.end(), Cell());
    FillKeyCells(number);
    if (Failed()) return false;
    if (needs_value_ && type_ == rdb::ValueType::kModule)
      return Refuse("unsupported_payload",
                    "the key holds a value of a module, which only the module can read");
    if (!needs_value_) {
      Put();
      return !Failed();
    }
    const bool is_direct = shape_.expand() == Expand::kNone && needs_json_ && JsonbCollector::Takes(type_) &&
                           entry_->payload.size() <= kMostDirectBytes;
    return is_direct ? FillAsJsonb() : FillDecoded();
  }

  // A collection as jsonb. As text only if that has to tell what is wrong.
  bool FillAsJsonb() {
    JsonbCollector collector(type_);
    const Status decoded = source::Decode(*entry_, collector);
    if (!decoded.ok()) return RefusePayload(decoded.error());
    if (!collector.is_text()) return FillDecoded();
    Cell cell;
    cell.kind = Cell::kJsonb;
    cell.collected = &collector;
    Set(Content::kJson, cell);
    Put();
    return !Failed();
  }

  bool FillDecoded() {
    std::optional<rdb::JsonCollector> collector;
    if (shape_.expand() == Expand::kNone && needs_json_ && type_ != rdb::ValueType::kString)
      collector.emplace(type_, *this);
    rdb::ValueVisitor &visitor = collector ? static_cast<rdb::ValueVisitor &>(*collector) : *this;
    Status decoded = source::Decode(*entry_, visitor);
    if (Failed()) return false;
    if (!decoded.ok()) return RefusePayload(decoded.error());
    if (shape_.expand() == Expand::kNone && type_ != rdb::ValueType::kString) {
      std::string json;
      if (collector) {
        json = collector->Finish();
        SetJson(json);
      }
      Put();
    }
    return !Failed();
  }

 public:
  void CheckInterrupts() override { pg::CheckInterrupts(); }
  void OnString(Bytes value) override {
    SetText(Content::kValue, value);
    Set(Content::kValueBytes, {Cell::kBytea, value});
    SetJson(value);
    Put();
  }
  void OnListElement(Bytes value) override {
    if (shape_.expand() == Expand::kElements) PutElement(value);
  }
  void OnSetMember(Bytes member) override {
    if (shape_.expand() != Expand::kElements) return;
    SetText(Content::kMember, member);
    Set(Content::kMemberBytes, {Cell::kBytea, member});
    PutElement(member);
  }
  void OnHashField(Bytes field, Bytes value) override {
    if (shape_.expand() != Expand::kElements) return;
    SetText(Content::kField, field);
    Set(Content::kFieldBytes, {Cell::kBytea, field});
    PutElement(value);
  }
  void OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) override {
    Set(Content::kFieldExpiresAt, {Cell::kTimestamp, {}, ToTimestamp(expires_at_ms)});
    OnHashField(field, value);
    Set(Content::kFieldExpiresAt, {});
  }
  void OnZsetMember(Bytes member, double score) override {
    if (shape_.expand() != Expand::kElements) return;
    SetText(Content::kMember, member);
    Set(Content::kMemberBytes, {Cell::kBytea, member});
    Set(Content::kScore, {Cell::kFloat8, {}, 0, score});
    PutElement(member);
  }
  void OnStreamEntry(rdb::StreamId id, const rdb::StreamFields &fields) override {
    if (shape_.expand() != Expand::kElements || Failed()) return;
    std::string id_text = rdb::FormatStreamId(id);
    std::string json;
    Set(Content::kEntryId, {Cell::kText, id_text});
    SetPosition();
    if (needs_fields_) Set(Content::kFieldsBytes, FieldsCell(fields));
    if (needs_json_) {
      json = rdb::StreamFieldsJson(fields);
      SetJson(json);
    }
    Put();
  }
  void OnStreamGroup(const rdb::StreamGroup &group) override {
    if (shape_.expand() != Expand::kGroups || Failed()) return;
    std::string id = rdb::FormatStreamId(group.last_delivered_id);
    SetText(Content::kGroupName, group.name);
    Set(Content::kGroupNameBytes, {Cell::kBytea, group.name});
    Set(Content::kLastDeliveredId, {Cell::kText, id});
    Cell read;
    if (group.entries_read >= 0) read = {Cell::kInt8, {}, group.entries_read};
    Set(Content::kEntriesRead, read);
    Put();
  }
  void OnStreamPending(const rdb::StreamPending &pending) override {
    if (shape_.expand() != Expand::kPending || Failed()) return;
    std::string id = rdb::FormatStreamId(pending.id);
    SetText(Content::kGroupName, pending.group);
    Set(Content::kGroupNameBytes, {Cell::kBytea, pending.group});
    Set(Content::kConsumer, {});
    Set(Content::kConsumerBytes, {});
    Set(Content::kDeliveredAt, {});
    if (pending.has_consumer) {
      SetText(Content::kConsumer, pending.consumer);
      Set(Content::kConsumerBytes, {Cell::kBytea, pending.consumer});
      Set(Content::kDeliveredAt, {Cell::kTimestamp, {}, ToTimestamp(pending.delivery_time_ms)});
    }
    Set(Content::kEntryId, {Cell::kText, id});
    Set(Content::kDeliveryCount, {Cell::kInt8, {}, static_cast<int64_t>(pending.delivery_count)});
    Put();
  }

 private:
  bool Failed() const { return !problem_->rule.empty(); }

  bool Refuse(const std::string &rule, std::string message) {
    if (Failed()) return false;  // the first problem stands
    problem_->rule = rule;
    problem_->message = std::move(message);
    return false;
  }

  bool RefusePayload(const Error &error) {
    return Refuse(error.code == ErrorCode::kUnsupported ? "unsupported_payload" : "corrupt_payload",
                  error.message);
  }

  bool TypeAllowed(const std::optional<std::vector<std::string>> &types) {
    std::string name = rdb::TypeName(type_);
    if (types && std::find(types->begin(), types->end(), name) == types->end()) {
      std::string wanted;
      for (const std::string &type : *types) wanted += (wanted.empty() ? "" : " or ") + type;
      return Refuse("wrong_type", "the key holds a " + name + ", the mapping takes " + wanted);
    }
    if (shape_.expand() == Expand::kElements && type_ == rdb::ValueType::kString)
      return Refuse("wrong_type", "the key holds a string, which has no elements");
    if ((shape_.expand() == Expand::kGroups || shape_.expand() == Expand::kPending) &&
        type_ != rdb::ValueType::kStream)
      return Refuse("wrong_type", "the key holds a " + name + "; only streams have consumer groups");
    return true;
  }

  void FillKeyCells(int number) {
    const source::Entry &entry = *entry_;
    // The key fits, as routing found.
    if (needs_captures_) shape_.pattern().MatchKey(entry.key, match_);
    for (size_t i = 0; i < cells_.size() && !Failed(); ++i) {
      if (!needed_[i]) continue;
      const BatchColumn &column = shape_.columns()[i];
      switch (column.content) {
        case Content::kEntry:
          cells_[i] = {Cell::kInt4, {}, number};
          break;
        case Content::kKey:
          cells_[i] = KeyText(i, entry.key);
          break;
        case Content::kKeyBytes:
          cells_[i] = {Cell::kBytea, entry.key};
          break;
        case Content::kDb:
          cells_[i] = {Cell::kInt4, {}, entry.db};
          break;
        case Content::kType:
          cells_[i] = {Cell::kText, rdb::TypeName(type_)};
          break;
        case Content::kPayload:
          dump_ = source::DumpOf(entry);
          cells_[i] = {Cell::kBytea, dump_};
          break;
        case Content::kExpiresAt:
          if (entry.expires_at_ms) cells_[i] = {Cell::kTimestamp, {}, ToTimestamp(*entry.expires_at_ms)};
          break;
        case Content::kCapture: {
          Bytes text = match_.values[column.capture];
          cells_[i] = KeyText(i, text);
          if (options_.one_spelling && !Failed() && !IsCanonical(column.capture_type, text))
            Refuse(column.name, "capture \"" + column.name +
                                    "\" is not spelled as PostgreSQL prints it: another key could yield the "
                                    "same row, and the mapping is exclusive");
          if (column.type != TEXTOID && !Failed()) cells_[i].kind = Cell::kInput;
          break;
        }
        default:
          break;
      }
    }
  }

  // Text of the key for a column.
  Cell KeyText(size_t column, Bytes utf8) {
    const std::optional<Bytes> text = pg::TextFromUtf8(utf8, texts_[column]);
    if (!text) Refuse("key_encoding", "the key is not text in the server's encoding");
    return {Cell::kText, text.value_or(Bytes())};
  }

  void Set(Content content, Cell cell) {
    for (size_t i = 0; i < cells_.size(); ++i)
      if (needed_[i] && shape_.columns()[i].content == content) cells_[i] = cell;
  }

  bool Needs(Content content) const {
    for (size_t i = 0; i < cells_.size(); ++i)
      if (needed_[i] && shape_.columns()[i].content == content) return true;
    return false;
  }

  void SetText(Content content, Bytes utf8) { SetConverted(content, Cell::kText, utf8); }

  // Text goes through the column type's input function.
  void SetConverted(Content content, Cell::Kind kind, Bytes utf8) {
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (!needed_[i] || shape_.columns()[i].content != content) continue;
      const std::optional<Bytes> text = pg::TextFromUtf8(utf8, texts_[i]);
      if (!text) {
        Refuse("value_encoding", "the value is not text in the server's encoding");
        return;
      }
      cells_[i] = {kind, *text};
    }
  }

  void SetJson(Bytes json) {
    if (!needs_json_) return;
    if (json.empty())
      Refuse("empty_value", "the value is empty");
    else if (json.size() >= MaxAllocSize)  // a collection whose elements had to be escaped
      Refuse("json_too_large", "the value as JSON has " + std::to_string(json.size()) + " bytes");
    else
      SetConverted(Content::kJson, Cell::kJson, json);
  }

  static Cell FieldsCell(const rdb::StreamFields &fields) {
    Cell cell;
    cell.kind = Cell::kFields;
    cell.fields = &fields;
    return cell;
  }

  void SetPosition() {
    Set(Content::kPosition, {Cell::kInt8, {}, position_});
    Set(Content::kOrdinal, {Cell::kInt8, {}, (position_ + 1) * kOrdinalStep});
    ++position_;
  }

  void PutElement(Bytes value) {
    SetText(Content::kValue, value);
    Set(Content::kValueBytes, {Cell::kBytea, value});
    SetPosition();
    SetJson(value);
    Put();
  }

  void Put() {
    if (TryPut()) {
      ++rows_put_;
    } else if (options_.by_element && shape_.expand() != Expand::kNone) {
      bad_elements_.push_back(*problem_);
      if (shape_.expand() == Expand::kElements)
        bad_elements_.back().message += " (element " + std::to_string(position_ - 1) + ")";
      problem_->rule.clear();
    }
  }

  bool TryPut() {
    if (Failed() || !FitsIntoRow()) return false;
    pg::SwitchContext in_context(context_.get());
    if (!ConvertInputs()) return false;
    pg::Call([&] {
      for (size_t i = 0; i < cells_.size(); ++i) {
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
          case Cell::kFields:
          case Cell::kJson:
          case Cell::kJsonb:
          case Cell::kInput:
            break;  // converted already
        }
      }
      tuplestore_putvalues(rows_.get(), desc_, values_.data(), nulls_.get());
    });
    if (MemoryContextMemAllocated(context_.get(), false) > kContextLimit) context_.Reset();
    return true;
  }

  // PostgreSQL holds a row in one piece of memory.
  bool FitsIntoRow() {
    size_t bytes = 0;
    for (const Cell &cell : cells_) {
      bytes += cell.bytes.size();
      if (cell.fields == nullptr) continue;
      for (const auto &[field, value] : *cell.fields)
        bytes += field.size() + value.size() + 2 * kArrayOverhead;
    }
    return bytes < kLargestRow ||
           Refuse("row_too_large",
                  "the columns of redis_batch that the query names have " + std::to_string(bytes) + " bytes");
  }

  // Runs the input functions: the only conversions that data can make fail.
  bool ConvertInputs() {
    for (size_t i = 0; i < cells_.size(); ++i) {
      const Cell &cell = cells_[i];
      if (cell.kind == Cell::kJson) {
        if (!ConvertJson(cell.bytes, &values_[i])) return false;
      } else if (cell.kind == Cell::kJsonb) {
        values_[i] = cell.collected->ToJsonb();
      } else if (cell.kind == Cell::kFields) {
        values_[i] = StreamFieldsDatum(*cell.fields);
      } else if (cell.kind == Cell::kInput) {
        values_[i] = ConvertCapture(shape_.columns()[i], cell.bytes);
      }
    }
    return true;
  }

  bool ConvertJson(Bytes text, Datum *value) {
    if (pg::kHasSoftErrors || options_.checked) {
      std::string message;
      int sqlstate = 0;
      if (jsonb_.TryConvert(text, value, &message, &sqlstate)) return true;
      // An escape, such as \u0000, of a character that the server cannot hold.
      const bool is_encoding =
          sqlstate == ERRCODE_UNTRANSLATABLE_CHARACTER || sqlstate == ERRCODE_FEATURE_NOT_SUPPORTED;
      return Refuse(sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED ? "json_too_large"
                    : is_encoding                              ? "value_encoding"
                                                               : "invalid_json",
                    message);
    }
    try {
      *value = jsonb_.Convert(text);
      return true;
    } catch (const pg::PgError &error) {
      if (pg::IsBadInput(error.sqlstate())) throw UncheckedJsonFailed();
      throw;
    }
  }

  // The text fits the capture's type (core/capture_type.h), so its input function takes it.
  static Datum ConvertCapture(const BatchColumn &column, Bytes text) {
    std::string value(text);
    if (column.capture_type == CaptureType::kMonth)
      value += value.size() == 7 ? "-01" : "01";  // a month is its first day
    return pg::InputFunction(column.type).Convert(value);
  }

  static constexpr size_t kContextLimit = 1024 * 1024;
  // Of larger payloads, which compression may make far larger as text, the size of the text is looked at.
  static constexpr size_t kMostDirectBytes = 64 * 1024;
  static constexpr size_t kArrayOverhead = 8;                        // of an element
  static constexpr size_t kLargestRow = MaxAllocSize - 1024 * 1024;  // with its headers

  const BatchShape &shape_;
  const std::vector<bool> &needed_;
  const FillOptions &options_;
  TupleDesc desc_;
  pg::Tuplestore &rows_;
  pg::Context context_;
  pg::InputFunction jsonb_;
  bool needs_value_ = false;
  bool needs_json_ = false;
  bool needs_fields_ = false;
  bool needs_captures_ = false;

  const source::Entry *entry_ = nullptr;
  Match match_;  // with the captures
  EntryProblem *problem_ = nullptr;
  rdb::ValueType type_ = rdb::ValueType::kString;
  std::string dump_;
  int64_t position_ = 0;
  int64_t rows_put_ = 0;
  std::vector<EntryProblem> bad_elements_;
  std::vector<Cell> cells_;
  std::vector<std::string> texts_;  // what cells show of what had to be converted
  std::vector<Datum> values_;
  std::unique_ptr<bool[]> nulls_;
};

}  // namespace

std::vector<EntryProblem> FillBatch(const BatchShape &shape, const std::vector<bool> &needed,
                                    const std::vector<const source::Entry *> &entries,
                                    const std::vector<int> &which, const FillOptions &options, TupleDesc desc,
                                    pg::Tuplestore &rows) {
  std::vector<EntryProblem> problems;
  Filler filler(shape, needed, options, desc, rows);
  for (int number : which) {
    pg::CheckInterrupts();
    filler.Fill(number, *entries[number], problems);
  }
  return problems;
}

}  // namespace prm
