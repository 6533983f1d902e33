#include "mapping/jsonb_collector.h"

#include "pg/encoding.h"

namespace prm {

bool JsonbCollector::Takes(rdb::ValueType type) {
  return type == rdb::ValueType::kHash || type == rdb::ValueType::kList || type == rdb::ValueType::kSet;
}

void JsonbCollector::CheckInterrupts() { pg::CheckInterrupts(); }

void JsonbCollector::Add(Bytes utf8) {
  const std::optional<Bytes> text = pg::TextFromUtf8(utf8, scratch_);
  is_text_ = is_text_ && text;
  if (!is_text_) return;
  bytes_ += *text;
  sizes_.push_back(static_cast<int>(text->size()));
}

// If a name stands twice in an object, the last value remains, as in jsonb's input function.
Datum JsonbCollector::ToJsonb() const {
  const char *at = bytes_.data();
  const int *const sizes = sizes_.data();
  size_t const count = sizes_.size();
  return pg::Call([&] {
    JsonbInState state = {};
    pushJsonbValue(&state, is_object_ ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY, nullptr);
    for (size_t i = 0; i < count; ++i) {
      JsonbValue value;
      value.type = jbvString;
      value.val.string.val = const_cast<char *>(at);
      value.val.string.len = sizes[i];
      at += sizes[i];
      pushJsonbValue(&state, !is_object_ ? WJB_ELEM : i % 2 == 0 ? WJB_KEY : WJB_VALUE, &value);
    }
    pushJsonbValue(&state, is_object_ ? WJB_END_OBJECT : WJB_END_ARRAY, nullptr);
    return JsonbPGetDatum(JsonbValueToJsonb(state.result));
  });
}

}  // namespace prm
