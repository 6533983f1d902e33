#include "mapping/batch_relation.h"

#include "mapping/batch_row.h"
#include "pg/encoding.h"
#include "pg/meanwhile.h"
#include "pg/time.h"
#include "rdb/json.h"

namespace prm {
namespace {

constexpr int64_t kOrdinalStep = 1024;
constexpr size_t kCacheLine = 64;
constexpr size_t kMostPrefetched = 512;  // of a payload; a processor finds the rest itself
constexpr char kNotText[] = "the value is not text in the server's encoding";

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
  Filler(const BatchShape &shape, const std::vector<bool> &needed, const FillOptions &options,
         BatchSink &sink)
      : shape_(shape),
        options_(options),
        row_(shape, needed, options.fields != nullptr ? options.fields->size() : 0, sink) {
    for (size_t const i : row_.columns()) {
      Content content = shape.columns()[i].content;
      if (content == Content::kCapture) needs_captures_ = true;
      if (content >= Content::kField || content == Content::kValue || content == Content::kValueBytes ||
          content == Content::kJson)
        needs_value_ = true;
    }
    needs_fields_ = options.fields != nullptr && !options.fields->empty();
    if (shape.expand() != Expand::kNone || needs_fields_) needs_value_ = true;
  }

  // Makes the rows of an entry and notes its problems.
  void Fill(int number, const source::Entry &entry, std::vector<EntryProblem> &problems) {
    EntryProblem problem;
    problem_ = &problem;
    problem.entry = number;
    entry_ = &entry;
    position_ = static_cast<int64_t>(entry.first_position);
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
    row_.Clear();
    FillKeyCells(number);
    if (Failed()) return false;
    if (needs_value_ && type_ == rdb::ValueType::kModule)
      return Refuse("unsupported_payload",
                    "the key holds a value of a module, which only the module can read");
    if (!needs_value_) {
      Put();
      return !Failed();
    }
    if (needs_fields_) return FillFields();
    const bool is_direct = shape_.expand() == Expand::kNone && row_.Needs(Content::kJson) &&
                           JsonbCollector::Takes(type_) && source::PayloadSize(*entry_) <= kMostDirectBytes;
    return is_direct ? FillAsJsonb() : FillDecoded();
  }

  // Sets the columns of fields. All of a hash has to be text, as if they were read from json.
  class FieldSetter : public rdb::ValueVisitor {
   public:
    FieldSetter(const std::vector<std::string> &fields, BatchRow &row) : fields_(fields), row_(row) {}
    void CheckInterrupts() override { pg::CheckInterrupts(); }
    void OnHashField(Bytes field, Bytes value) override {
      if (!is_text_) return;
      const std::optional<Bytes> name = pg::TextFromUtf8(field, name_);
      const std::optional<Bytes> text = pg::TextFromUtf8(value, text_);
      is_text_ = name && text;
      if (!is_text_) return;
      size_t const place = Find(*name);
      if (place == fields_.size()) return;
      row_.SetField(place, *text);
      next_ = place + 1;
    }
    bool is_text() const { return is_text_; }

   private:
    // Fields of a hash often come in the order in which the query names them.
    size_t Find(Bytes name) const {
      if (next_ < fields_.size() && fields_[next_] == name) return next_;
      return static_cast<size_t>(std::find(fields_.begin(), fields_.end(), name) - fields_.begin());
    }

    const std::vector<std::string> &fields_;
    BatchRow &row_;
    size_t next_ = 0;
    bool is_text_ = true;
    std::string name_, text_;
  };

  bool FillFields() {
    FieldSetter setter(*options_.fields, row_);
    const Status decoded = source::Decode(*entry_, setter);
    if (!decoded.ok()) return RefusePayload(decoded.error());
    if (!setter.is_text()) return Refuse("value_encoding", kNotText);
    Put();
    return !Failed();
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
    row_.Set(Content::kJson, cell);
    Put();
    return !Failed();
  }

  bool FillDecoded() {
    std::optional<rdb::JsonCollector> collector;
    if (shape_.expand() == Expand::kNone && row_.Needs(Content::kJson) && type_ != rdb::ValueType::kString)
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
    row_.Set(Content::kValueBytes, {Cell::kBytea, value});
    SetJson(value);
    Put();
  }
  void OnListElement(Bytes value) override {
    if (shape_.expand() == Expand::kElements) PutElement(value);
  }
  void OnSetMember(Bytes member) override {
    if (shape_.expand() != Expand::kElements) return;
    SetText(Content::kMember, member);
    row_.Set(Content::kMemberBytes, {Cell::kBytea, member});
    PutElement(member);
  }
  void OnHashField(Bytes field, Bytes value) override {
    if (shape_.expand() != Expand::kElements) return;
    SetText(Content::kField, field);
    row_.Set(Content::kFieldBytes, {Cell::kBytea, field});
    PutElement(value);
  }
  void OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) override {
    row_.Set(Content::kFieldExpiresAt, {Cell::kTimestamp, {}, ToTimestamp(expires_at_ms)});
    OnHashField(field, value);
    row_.Set(Content::kFieldExpiresAt, {});
  }
  void OnZsetMember(Bytes member, double score) override {
    if (shape_.expand() != Expand::kElements) return;
    SetText(Content::kMember, member);
    row_.Set(Content::kMemberBytes, {Cell::kBytea, member});
    row_.Set(Content::kScore, {Cell::kFloat8, {}, 0, score});
    PutElement(member);
  }
  void OnStreamEntry(rdb::StreamId id, const rdb::StreamFields &fields) override {
    if (shape_.expand() != Expand::kElements || Failed()) return;
    std::string id_text = rdb::FormatStreamId(id);
    std::string json;
    row_.Set(Content::kEntryId, {Cell::kText, id_text});
    SetPosition();
    if (row_.Needs(Content::kFieldsBytes)) row_.Set(Content::kFieldsBytes, FieldsCell(fields));
    if (row_.Needs(Content::kJson)) {
      json = rdb::StreamFieldsJson(fields);
      SetJson(json);
    }
    Put();
  }
  void OnStreamGroup(const rdb::StreamGroup &group) override {
    if (shape_.expand() != Expand::kGroups || Failed()) return;
    std::string id = rdb::FormatStreamId(group.last_delivered_id);
    SetText(Content::kGroupName, group.name);
    row_.Set(Content::kGroupNameBytes, {Cell::kBytea, group.name});
    row_.Set(Content::kLastDeliveredId, {Cell::kText, id});
    Cell read;
    if (group.entries_read >= 0) read = {Cell::kInt8, {}, group.entries_read};
    row_.Set(Content::kEntriesRead, read);
    Put();
  }
  void OnStreamPending(const rdb::StreamPending &pending) override {
    if (shape_.expand() != Expand::kPending || Failed()) return;
    std::string id = rdb::FormatStreamId(pending.id);
    SetText(Content::kGroupName, pending.group);
    row_.Set(Content::kGroupNameBytes, {Cell::kBytea, pending.group});
    row_.Set(Content::kConsumer, {});
    row_.Set(Content::kConsumerBytes, {});
    row_.Set(Content::kDeliveredAt, {});
    if (pending.has_consumer) {
      SetText(Content::kConsumer, pending.consumer);
      row_.Set(Content::kConsumerBytes, {Cell::kBytea, pending.consumer});
      row_.Set(Content::kDeliveredAt, {Cell::kTimestamp, {}, ToTimestamp(pending.delivery_time_ms)});
    }
    row_.Set(Content::kEntryId, {Cell::kText, id});
    row_.Set(Content::kDeliveryCount, {Cell::kInt8, {}, static_cast<int64_t>(pending.delivery_count)});
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
    for (size_t const i : row_.columns()) {
      if (Failed()) return;
      const BatchColumn &column = shape_.columns()[i];
      Cell &cell = row_.cell(i);
      switch (column.content) {
        case Content::kEntry:
          cell = {Cell::kInt4, {}, number};
          break;
        case Content::kKey:
          SetKeyText(i, entry.key);
          break;
        case Content::kKeyBytes:
          cell = {Cell::kBytea, entry.key};
          break;
        case Content::kDb:
          cell = {Cell::kInt4, {}, entry.db};
          break;
        case Content::kType:
          cell = {Cell::kText, rdb::TypeName(type_)};
          break;
        case Content::kPayload:
          dump_ = pg::ValueOrThrow(source::DumpOf(entry));
          cell = {Cell::kBytea, dump_};
          break;
        case Content::kExpiresAt:
          if (entry.expires_at_ms) cell = {Cell::kTimestamp, {}, ToTimestamp(*entry.expires_at_ms)};
          break;
        case Content::kCapture: {
          Bytes text = match_.values[column.capture];
          SetKeyText(i, text);
          if (options_.one_spelling && !Failed() && !IsCanonical(column.capture_type, text))
            Refuse(column.name, "capture \"" + column.name +
                                    "\" is not spelled as PostgreSQL prints it: another key could yield the "
                                    "same row, and the mapping is exclusive");
          if (column.type != TEXTOID && !Failed()) cell.kind = Cell::kInput;
          break;
        }
        default:
          break;
      }
    }
  }

  // Text of the key for a column.
  void SetKeyText(size_t column, Bytes utf8) {
    if (!row_.SetColumnText(column, Cell::kText, utf8))
      Refuse("key_encoding", "the key is not text in the server's encoding");
  }

  void SetText(Content content, Bytes utf8) { SetConverted(content, Cell::kText, utf8); }

  // Text goes through the column type's input function.
  void SetConverted(Content content, Cell::Kind kind, Bytes utf8) {
    if (!row_.SetText(content, kind, utf8)) Refuse("value_encoding", kNotText);
  }

  void SetJson(Bytes json) {
    if (!row_.Needs(Content::kJson)) return;
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
    row_.Set(Content::kPosition, {Cell::kInt8, {}, position_});
    row_.Set(Content::kOrdinal, {Cell::kInt8, {}, (position_ + 1) * kOrdinalStep});
    ++position_;
  }

  void PutElement(Bytes value) {
    SetText(Content::kValue, value);
    row_.Set(Content::kValueBytes, {Cell::kBytea, value});
    SetPosition();
    SetJson(value);
    Put();
  }

  void Put() {
    if (!Failed()) {
      if (std::optional<BatchRow::Problem> problem = row_.Put())
        Refuse(problem->rule, std::move(problem->message));
    }
    if (!Failed()) {
      ++rows_put_;
    } else if (options_.by_element && shape_.expand() != Expand::kNone) {
      bad_elements_.push_back(*problem_);
      if (shape_.expand() == Expand::kElements)
        bad_elements_.back().message += " (element " + std::to_string(position_ - 1) + ")";
      problem_->rule.clear();
    }
  }

  // Compressed payloads may be far larger as text: the size of the text of larger ones is looked at.
  static constexpr size_t kMostDirectBytes = 64 * 1024;

  const BatchShape &shape_;
  const FillOptions &options_;
  BatchRow row_;
  bool needs_value_ = false;
  bool needs_captures_ = false;
  bool needs_fields_ = false;

  const source::Entry *entry_ = nullptr;
  Match match_;  // with the captures
  EntryProblem *problem_ = nullptr;
  rdb::ValueType type_ = rdb::ValueType::kString;
  std::string dump_;
  int64_t position_ = 0;
  int64_t rows_put_ = 0;
  std::vector<EntryProblem> bad_elements_;
};

}  // namespace

std::vector<EntryProblem> FillBatch(const BatchShape &shape, const std::vector<bool> &needed,
                                    const std::vector<const source::Entry *> &entries,
                                    const std::vector<int> &which, const FillOptions &options,
                                    BatchSink &sink) {
  std::vector<EntryProblem> problems;
  Filler filler(shape, needed, options, sink);
  // In the order of their names entries are scattered over memory that is larger than a processor's caches.
  auto prefetch_entry = [&](size_t at) {
    if (at >= which.size()) return;
    const source::Entry *entry = entries[static_cast<size_t>(which[at])];
    __builtin_prefetch(&entry->key);
    __builtin_prefetch(&entry->expires_at_ms);
  };
  auto prefetch_bytes = [&](size_t at) {
    if (at >= which.size()) return;
    const source::Entry &entry = *entries[static_cast<size_t>(which[at])];
    __builtin_prefetch(entry.key.data());
    const std::string &payload = entry.payload;
    for (size_t line = 0; line < std::min(payload.size(), kMostPrefetched); line += kCacheLine)
      __builtin_prefetch(payload.data() + line);
    __builtin_prefetch(payload.data() + payload.size());  // its version and checksum
  };
  for (size_t i = 0; i < which.size(); ++i) {
    pg::CheckInterrupts();
    pg::Proceed();
    prefetch_entry(i + 8);
    prefetch_bytes(i + 4);
    filler.Fill(which[i], *entries[static_cast<size_t>(which[i])], problems);
  }
  return problems;
}

}  // namespace prm
