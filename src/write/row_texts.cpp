#include "write/row_texts.h"

#include "pg/detoast.h"
#include "pg/each_row.h"
#include "pg/memory.h"
#include "pg/spi.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

// In bytes, without compression.
constexpr size_t kLargeBytes = 1024 * 1024;
constexpr size_t kPieceBytes = 1024 * 1024;
constexpr size_t kMarkBytes = 1 + PG_SHA256_DIGEST_LENGTH;

// Whether the output of a type is what is stored.
bool IsStoredAsText(Oid type) {
  return type == TEXTOID || type == VARCHAROID || type == BPCHAROID || type == JSONOID;
}

// Bytes of a value, piece by piece. What is out of line and not compressed is never read whole.
class Pieces {
 public:
  explicit Pieces(Datum value) {
    auto *stored = reinterpret_cast<struct varlena *>(DatumGetPointer(value));
    by_slices_ = VARATT_IS_EXTERNAL_ONDISK(stored);
    if (by_slices_) {
      struct varatt_external pointer;
      VARATT_EXTERNAL_GET_POINTER(pointer, stored);
      // As VARATT_EXTERNAL_IS_COMPRESSED, which compares numbers of different signs.
      by_slices_ = static_cast<int32>(VARATT_EXTERNAL_GET_EXTSIZE(pointer)) >= pointer.va_rawsize - VARHDRSZ;
    }
    if (by_slices_) {
      value_ = stored;
      size_ = pg::Call([&] { return toast_raw_datum_size(value); }) - VARHDRSZ;
    } else {
      whole_ = pg::DatumBytes(value);
      size_ = whole_.size();
    }
  }
  // Takes a type's output.
  explicit Pieces(const char *output) : whole_(output), size_(whole_.size()) {}

  template <typename Visit>
  void ForEach(Visit visit) const {
    for (size_t at = 0; at < size_; at += kPieceBytes) {
      pg::CheckInterrupts();
      if (!by_slices_) {
        visit(whole_.substr(at, kPieceBytes));
        continue;
      }
      pg::Context context("redis_migrate piece");
      pg::SwitchContext in_context(context.get());
      auto *slice = pg::Call([&] {
        return pg_detoast_datum_slice(value_, static_cast<int32>(at), static_cast<int32>(kPieceBytes));
      });
      visit(Bytes(VARDATA_ANY(slice), VARSIZE_ANY_EXHDR(slice)));
    }
  }

 private:
  bool by_slices_ = false;
  struct varlena *value_ = nullptr;
  Bytes whole_;
  size_t size_;
};

std::string Sha256(const Pieces &pieces) {
  pg_cryptohash_ctx *context = nullptr;
  auto require = [&](bool is_done) {
    if (!is_done) throw pg::Failure(ERRCODE_INTERNAL_ERROR, "could not compute a SHA-256");
  };
  context = pg::Call([] { return pg_cryptohash_create(PG_SHA256); });
  require(context != nullptr);
  require(pg::Call([&] { return pg_cryptohash_init(context); }) >= 0);
  pieces.ForEach([&](Bytes piece) {
    require(pg::Call([&] {
              return pg_cryptohash_update(context, reinterpret_cast<const uint8 *>(piece.data()),
                                          piece.size());
            }) >= 0);
  });
  uint8 digest[PG_SHA256_DIGEST_LENGTH];
  require(pg::Call([&] { return pg_cryptohash_final(context, digest, sizeof digest); }) >= 0);
  pg::Call([&] { pg_cryptohash_free(context); });
  return std::string(reinterpret_cast<const char *>(digest), sizeof digest);
}

// Returns the number of the value.
int64 KeepPieces(const Pieces &pieces, int64 run_id) {
  int64 value_id = 0;
  int32 number = 0;
  auto keep = [&](Bytes piece) {
    pg::AsExtensionOwner as_owner;
    if (number == 0)
      value_id =
          Spi::ExecuteKept("SELECT nextval('redis_migrate.journal_value_value_id_seq')", {})[0].Int8(0);
    Spi::ExecuteKept(
        "INSERT INTO redis_migrate.journal_value (run_id, value_id, piece, bytes) VALUES ($1, $2, $3, $4)",
        {SqlParam::Int8(run_id), SqlParam::Int8(value_id), SqlParam::Int4(number++), SqlParam::Bytea(piece)});
  };
  pieces.ForEach(keep);
  return value_id;
}

// A varlena, or a C string, of the bytes of a kept value.
char *LoadPieces(int64 value_id, size_t header) {
  pg::SnapshotScope snapshot;
  pg::AsExtensionOwner as_owner;
  int64 const size = Spi::ExecuteKept(
                         R"sql(SELECT coalesce(sum(octet_length(bytes)), 0)
                              FROM redis_migrate.journal_value
                              WHERE value_id = $1)sql",
                         {SqlParam::Int8(value_id)})[0]
                         .Int8(0);
  if (size == 0)
    throw pg::Failure(ERRCODE_DATA_CORRUPTED,
                      "large value " + std::to_string(value_id) + " of the journal is gone");
  char *const loaded =
      pg::Call([&] { return static_cast<char *>(palloc_extended(header + size + 1, MCXT_ALLOC_HUGE)); });
  size_t at = header;
  for (int32 number = 0; at < header + static_cast<size_t>(size); ++number) {
    pg::CheckInterrupts();
    pg::Context context("redis_migrate piece");
    pg::SwitchContext in_context(context.get());
    pg::Rows const rows =
        Spi::ExecuteKept("SELECT bytes FROM redis_migrate.journal_value WHERE value_id = $1 AND piece = $2",
                         {SqlParam::Int8(value_id), SqlParam::Int4(number)});
    if (rows.size() == 0)
      throw pg::Failure(ERRCODE_DATA_CORRUPTED,
                        "large value " + std::to_string(value_id) + " of the journal is not whole");
    Bytes const bytes = pg::DatumBytes(rows[0].Value(0));
    memcpy(loaded + at, bytes.data(), bytes.size());
    at += bytes.size();
  }
  loaded[at] = '\0';
  if (header > 0) SET_VARSIZE(loaded, at);
  return loaded;
}

}  // namespace

bool IsLargeMark(Bytes text) { return !text.empty() && text[0] == '\0'; }

int64 ValueOfMark(Bytes mark) {
  if (mark.size() <= kMarkBytes)
    throw pg::Failure(ERRCODE_DATA_CORRUPTED, "a large value of the journal has no number");
  return std::stoll(std::string(mark.substr(kMarkBytes)));
}

Bytes Comparable(Bytes text) { return IsLargeMark(text) ? text.substr(0, kMarkBytes) : text; }

bool IsSameText(const std::optional<std::string> &a, const std::optional<std::string> &b) {
  if (!a || !b) return !a && !b;
  return Comparable(*a) == Comparable(*b);
}

bool AreSameTexts(const RowText &a, const RowText &b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), IsSameText);
}

ColumnTexts::ColumnTexts(const std::vector<const TargetColumn *> &columns) {
  for (const TargetColumn *column : columns) {
    Output output;
    pg::Call([&] {
      output.type = getBaseType(column->type);
      char alignment;
      get_typlenbyvalalign(output.type, &output.length, &output.by_value, &alignment);
      Oid function;
      bool is_varlena;
      getTypeOutputInfo(output.type, &function, &is_varlena);
      fmgr_info(function, &output.function);
    });
    output.is_bytes = IsStoredAsText(output.type);
    outputs_.push_back(output);
  }
}

bool ColumnTexts::AreSame(size_t column, TupleTableSlot *slot, int one, int other) const {
  if (slot->tts_isnull[one] || slot->tts_isnull[other])
    return slot->tts_isnull[one] && slot->tts_isnull[other];
  const Output &output = outputs_[column];
  Datum const a = slot->tts_values[one], b = slot->tts_values[other];
  if (output.length == -1) {
    // Out of line at the same place.
    auto *const p = DatumGetPointer(a);
    auto *const q = DatumGetPointer(b);
    if (VARATT_IS_EXTERNAL_ONDISK(p) && VARATT_IS_EXTERNAL_ONDISK(q) &&
        memcmp(p, q, VARSIZE_EXTERNAL(p)) == 0)
      return true;
    if (pg::Call([&] { return toast_raw_datum_size(a) != toast_raw_datum_size(b); })) return false;
  }
  return pg::Call([&] { return datum_image_eq(a, b, output.by_value, output.length); });
}

Bytes ColumnTexts::MarkOf(const Output &output, Datum value, std::optional<int64> keeping_run) {
  const Output *of = &output;
  Pieces const pieces = output.is_bytes || output.type == BYTEAOID ? Pieces(value) : Pieces(pg::Call([&] {
    FmgrInfo function = of->function;
    return const_cast<const char *>(OutputFunctionCall(&function, value));
  }));
  mark_ = std::string(1, '\0') + Sha256(pieces);
  if (keeping_run) mark_ += std::to_string(KeepPieces(pieces, *keeping_run));
  return mark_;
}

std::optional<Bytes> ColumnTexts::Of(size_t column, TupleTableSlot *slot, int attribute,
                                     std::optional<int64> keeping_run) {
  if (attribute < 0 || slot->tts_isnull[attribute]) return std::nullopt;
  Output &output = outputs_[column];
  Datum const value = slot->tts_values[attribute];
  if (output.length == -1 && toast_raw_datum_size(value) > kLargeBytes)
    return MarkOf(output, value, keeping_run);
  if (output.is_bytes) return pg::DatumBytes(value);
  const char *const text =
      pg::Call([&]() -> const char * { return OutputFunctionCall(&output.function, value); });
  return Bytes(text);
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

RowText TextsOf(ColumnTexts &texts, TupleTableSlot *slot, int first, int count) {
  RowText row;
  for (int i = 0; i < count; ++i) {
    pg::Context context("redis_migrate value");
    pg::SwitchContext in_context(context.get());
    std::optional<Bytes> const text = texts.Of(static_cast<size_t>(i), slot, first + i, std::nullopt);
    row.push_back(text ? std::optional<std::string>(*text) : std::nullopt);
  }
  return row;
}

std::string BaseTypeName(const TargetColumn &column) {
  Oid const type = column.type;
  return pg::Call([&] { return const_cast<const char *>(format_type_be(getBaseType(type))); });
}

Datum ValueOfText(const TargetColumn &column, const std::string &was, const std::string &text) {
  Oid const type = column.type;
  int32 const typmod = column.typmod;
  char *data = nullptr;
  std::string copy;  // input functions take a string that they may write to
  if (IsLargeMark(text)) {
    Oid const base = pg::Call([&] { return getBaseType(type); });
    // To read it once more would take as much memory again.
    bool const is_kept_so =
        base == BYTEAOID || (IsStoredAsText(base) && typmod < 0 && BaseTypeName(column) == was);
    data = LoadPieces(ValueOfMark(text), is_kept_so ? VARHDRSZ : 0);
    if (is_kept_so) {
      if (type != base) pg::Call([&] { domain_check(PointerGetDatum(data), false, type, nullptr, nullptr); });
      return PointerGetDatum(data);
    }
  } else {
    copy = text;
    data = copy.data();
  }
  return pg::Call([&] {
    Oid input, io_param;
    getTypeInputInfo(type, &input, &io_param);
    return OidInputFunctionCall(input, data, io_param, typmod);
  });
}

}  // namespace prm
