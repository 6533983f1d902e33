// SQL functions over the values of keys, for queries and for looking into payloads.
#include "mapping/batch_relation.h"
#include "pg/arguments.h"
#include "pg/encoding.h"
#include "pg/entry.h"
#include "pg/soft_input.h"
#include "rdb/dump.h"
#include "rdb/json.h"

namespace prm {
namespace {

class FieldFinder : public rdb::ValueVisitor {
 public:
  explicit FieldFinder(Bytes name) : name_(name) {}
  void OnHashField(Bytes field, Bytes value) override {
    if (field == name_) value_ = std::string(value);
  }
  void CheckInterrupts() override { pg::CheckInterrupts(); }
  const std::optional<std::string> &value() const { return value_; }

 private:
  Bytes name_;
  std::optional<std::string> value_;
};

// The columns of redis_migrate.elements.
enum ElementColumn {
  kPosition,
  kField,
  kMember,
  kScore,
  kEntryId,
  kValue,
  kValueBytes,
  kJson,
  kFieldBytes,
  kFieldsBytes,
  kFieldExpiresAt,
  kElementColumns
};

class ElementWriter : public rdb::ValueVisitor {
 public:
  explicit ElementWriter(ReturnSetInfo *result)
      : result_(result), context_("redis_migrate.elements"), jsonb_(JSONBOID) {
    Clear();
  }

  void CheckInterrupts() override { pg::CheckInterrupts(); }
  void OnString(Bytes value) override { PutValue(value); }
  void OnListElement(Bytes value) override { PutValue(value); }
  void OnSetMember(Bytes member) override {
    SetText(kMember, member);
    PutValue(member);
  }
  void OnHashField(Bytes field, Bytes value) override {
    SetText(kField, field);
    SetBytes(kFieldBytes, field);
    PutValue(value);
  }
  void OnExpiringHashField(Bytes field, Bytes value, int64_t expires_at_ms) override {
    values_[kFieldExpiresAt] = TimestampTzGetDatum(ToTimestamp(expires_at_ms));
    nulls_[kFieldExpiresAt] = false;
    OnHashField(field, value);
  }
  void OnZsetMember(Bytes member, double score) override {
    SetText(kMember, member);
    values_[kScore] = Float8GetDatum(score);
    nulls_[kScore] = false;
    PutValue(member);
  }
  void OnModuleValue(Bytes type_name) override {
    throw pg::Failure(ERRCODE_FEATURE_NOT_SUPPORTED,
                      "a value of module type " + std::string(type_name) + " can be read only by its module");
  }
  void OnStreamEntry(rdb::StreamId id, const rdb::StreamFields &fields) override {
    SetText(kEntryId, rdb::FormatStreamId(id));
    SetJson(rdb::StreamFieldsJson(fields));
    pg::SwitchContext in_context(context_.get());
    values_[kFieldsBytes] = StreamFieldsDatum(fields);
    nulls_[kFieldsBytes] = false;
    Put();
  }

 private:
  void Clear() { std::fill(std::begin(nulls_), std::end(nulls_), true); }

  void SetText(ElementColumn column, Bytes utf8) {
    const std::optional<Bytes> text = pg::TextFromUtf8(utf8, scratch_);
    if (!text) return;
    pg::SwitchContext in_context(context_.get());
    values_[column] = pg::TextDatum(*text);
    nulls_[column] = false;
  }

  void SetBytes(ElementColumn column, Bytes bytes) {
    pg::SwitchContext in_context(context_.get());
    values_[column] = pg::ByteaDatum(bytes);
    nulls_[column] = false;
  }

  void SetJson(Bytes utf8) {
    const std::optional<Bytes> json = pg::TextFromUtf8(utf8, scratch_);
    if (!json) return;
    pg::SwitchContext in_context(context_.get());
    std::string message;
    nulls_[kJson] = !jsonb_.TryConvert(*json, &values_[kJson], &message);
  }

  void PutValue(Bytes value) {
    SetText(kValue, value);
    SetJson(value);
    SetBytes(kValueBytes, value);
    Put();
  }

  void Put() {
    values_[kPosition] = Int64GetDatum(position_++);
    nulls_[kPosition] = false;
    pg::Call([&] { tuplestore_putvalues(result_->setResult, result_->setDesc, values_, nulls_); });
    Clear();
    context_.Reset();
  }

  ReturnSetInfo *result_;
  pg::Context context_;
  pg::InputFunction jsonb_;
  std::string scratch_;
  int64 position_ = 0;
  Datum values_[kElementColumns] = {};
  bool nulls_[kElementColumns] = {};
};

}  // namespace
}  // namespace prm

using namespace prm;

// redis_migrate.field(payload bytea, name text) → text. NULL when there is no such field or the value is not
// a hash. Errors: XX001 damaged payload, 0A000 unknown type, 22021 the value is not text.
PRM_FUNCTION(field) {
  Bytes payload = pg::DatumBytes(PG_GETARG_DATUM(0));
  const std::string name = pg::Utf8FromText(pg::DatumBytes(PG_GETARG_DATUM(1)), "the name of the field");
  FieldFinder finder(name);
  pg::ThrowIfError(rdb::DecodeDump(payload, finder));
  if (!finder.value()) PG_RETURN_NULL();
  std::string scratch;
  const std::optional<Bytes> converted = pg::TextFromUtf8(*finder.value(), scratch);
  if (!converted)
    throw pg::Failure(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
                      "the field's value is not text in the server's encoding", "",
                      "Use redis_migrate.field_bytes(payload, name).");
  return pg::TextDatum(*converted);
}

// redis_migrate.field_bytes(payload bytea, name bytea) → bytea: the same for fields and values of any bytes.
PRM_FUNCTION(field_bytes) {
  Bytes payload = pg::DatumBytes(PG_GETARG_DATUM(0));
  FieldFinder finder(pg::DatumBytes(PG_GETARG_DATUM(1)));
  pg::ThrowIfError(rdb::DecodeDump(payload, finder));
  if (!finder.value()) PG_RETURN_NULL();
  return pg::ByteaDatum(*finder.value());
}

// redis_migrate.elements(payload bytea) → rows. Texts that the server's encoding does not have are NULL;
// their bytes are in value_bytes, field_bytes and fields_bytes. json is NULL where the value is not JSON.
// Errors: XX001, 0A000.
PRM_FUNCTION(elements) {
  pg::Call([&] { InitMaterializedSRF(fcinfo, 0); });
  Bytes payload = pg::DatumBytes(PG_GETARG_DATUM(0));
  ElementWriter writer(reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo));
  pg::ThrowIfError(rdb::DecodeDump(payload, writer));
  return static_cast<Datum>(0);
}

// redis_migrate.bytes_as_text(bytes bytea) → text, or NULL.
PRM_FUNCTION(bytes_as_text) {
  std::string scratch;
  const std::optional<Bytes> converted = pg::TextFromUtf8(pg::DatumBytes(PG_GETARG_DATUM(0)), scratch);
  if (!converted) PG_RETURN_NULL();
  return pg::TextDatum(*converted);
}
