#include "write/row_texts.h"

#include "pg/memory.h"

namespace prm {

std::string ValueDigest(const std::optional<std::string> &text) {
  if (!text) return "";
  uint8 digest[PG_SHA256_DIGEST_LENGTH];
  const char *const data = text->data();
  size_t const size = text->size();
  pg::Call([&] {
    pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
    bool const is_made = context != nullptr && pg_cryptohash_init(context) >= 0 &&
                         pg_cryptohash_update(context, reinterpret_cast<const uint8 *>(data), size) >= 0 &&
                         pg_cryptohash_final(context, digest, sizeof digest) >= 0;
    if (context != nullptr) pg_cryptohash_free(context);
    if (!is_made) ereport(ERROR, (errmsg("could not compute a SHA-256")));
  });
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (size_t i = 0; i < 16; ++i) {
    hex += kDigits[digest[i] >> 4];
    hex += kDigits[digest[i] & 15];
  }
  return hex;
}

RowText TextsOf(TupleTableSlot *slot, int first, int count) {
  RowText texts;
  texts.reserve(static_cast<size_t>(count));
  pg::Context context("redis_migrate row");
  pg::SwitchContext in_context(context.get());
  pg::Call([&] { slot_getallattrs(slot); });
  for (int i = first; i < first + count; ++i) {
    if (slot->tts_isnull[i]) {
      texts.emplace_back();
      continue;
    }
    const char *text = pg::Call([&] {
      Oid output;
      bool is_varlena;
      getTypeOutputInfo(TupleDescAttr(slot->tts_tupleDescriptor, i)->atttypid, &output, &is_varlena);
      return const_cast<const char *>(OidOutputFunctionCall(output, slot->tts_values[i]));
    });
    texts.emplace_back(text);
  }
  return texts;
}

Datum TextArrayDatum(const RowText &texts) {
  std::vector<Datum> values;
  auto nulls = std::make_unique<bool[]>(texts.size() + 1);
  for (size_t i = 0; i < texts.size(); ++i) {
    nulls[i] = !texts[i];
    values.push_back(texts[i] ? pg::TextDatum(*texts[i]) : Datum{0});
  }
  Datum *const data = values.data();
  bool *const null = nulls.get();
  int count = static_cast<int>(texts.size());
  return pg::Call([&] {
    int lower = 1;
    return PointerGetDatum(
        construct_md_array(data, null, 1, &count, &lower, TEXTOID, -1, false, TYPALIGN_INT));
  });
}

RowText TextsOfArray(Datum array) {
  Datum *elements = nullptr;
  bool *nulls = nullptr;
  int count = 0;
  pg::Call([&] {
    deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
  });
  RowText texts;
  for (int i = 0; i < count; ++i) {
    if (nulls[i])
      texts.emplace_back();
    else
      texts.emplace_back(std::string(pg::DatumBytes(elements[i])));
  }
  return texts;
}

Datum ValueOfText(const TargetColumn &column, const std::string &text) {
  std::string copy = text;  // input functions take a string that they may write to
  char *const data = copy.data();
  Oid const type = column.type;
  int32 const typmod = column.typmod;
  return pg::Call([&] {
    Oid input, io_param;
    getTypeInputInfo(type, &input, &io_param);
    return OidInputFunctionCall(input, data, io_param, typmod);
  });
}

}  // namespace prm
