#include "ledger/row_hash.h"

#include "core/packed_items.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;

namespace {

SipKey LoadSecret() {
  pg::AsExtensionOwner as_owner;
  pg::Rows const rows = Spi::ExecuteKept("SELECT secret FROM redis_migrate.ledger_secret", {});
  if (rows.size() == 0)
    throw pg::Failure(
        ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "there is no secret for the hashes of ledgers",
        "redis_migrate.add_mapping and redis_migrate.alter_mapping draw it, and so do runs.",
        "Restore the row of redis_migrate.ledger_secret if there was one, or define a mapping first.");
  Bytes const secret = pg::DatumBytes(rows[0].Value(0));
  SipKey key{};
  for (size_t i = 0; i < sizeof key; ++i)
    key[i / 8] |= uint64_t{static_cast<unsigned char>(secret[i])} << (8 * (i % 8));
  return key;
}

int64 Integer(Datum value, int16 length) {
  switch (length) {
    case 1:
      return DatumGetChar(value);
    case 2:
      return DatumGetInt16(value);
    case 4:
      return DatumGetInt32(value);
    default:
      return DatumGetInt64(value);
  }
}

// Values of an array, or fields of a composite.
struct Values {
  int count;
  Datum *values;
  bool *nulls;
  Oid *types;  // of a composite; dropped columns are left out
};

Values FieldsOf(Datum composite) {
  return pg::Call([&] {
    HeapTupleHeader header = DatumGetHeapTupleHeader(composite);
    TupleDesc desc =
        lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
    auto const size = static_cast<Size>(desc->natts);
    Values fields = {0, static_cast<Datum *>(palloc(size * sizeof(Datum))), static_cast<bool *>(palloc(size)),
                     static_cast<Oid *>(palloc(size * sizeof(Oid)))};
    HeapTupleData tuple = {};
    tuple.t_len = HeapTupleHeaderGetDatumLength(header);
    tuple.t_data = header;
    heap_deform_tuple(&tuple, desc, fields.values, fields.nulls);
    for (int i = 0; i < desc->natts; ++i) {
      if (TupleDescAttr(desc, i)->attisdropped) continue;
      fields.values[fields.count] = fields.values[i];
      fields.nulls[fields.count] = fields.nulls[i];
      fields.types[fields.count++] = TupleDescAttr(desc, i)->atttypid;
    }
    ReleaseTupleDesc(desc);
    return fields;
  });
}

}  // namespace

RowHasher::RowHasher() : hasher_(LoadSecret()) {}

RowHasher::Image RowHasher::ImageOf(Oid type) {
  for (const auto &[known, image] : images_)
    if (known == type) return image;
  Image const image = pg::Call([&] {
    Image facts = {};
    bool by_value;
    Oid const base = getBaseType(type);
    get_typlenbyval(base, &facts.length, &by_value);
    // Arrays hold the OID of their elements' type, which PostgreSQL's own types keep.
    Oid const element = get_element_type(base);
    if (OidIsValid(element) && element >= FirstNormalObjectId)
      facts.kind = Kind::kArray;
    else if (get_typtype(base) == TYPTYPE_ENUM)
      facts.kind = Kind::kEnum;
    else if (type_is_rowtype(base))
      facts.kind = Kind::kComposite;
    else if (by_value)
      facts.kind = Kind::kInteger;
    else if (facts.length == -1)
      facts.kind = Kind::kVarlena;
    else
      facts.kind = facts.length > 0 ? Kind::kFixed : Kind::kCString;
    return facts;
  });
  images_.emplace_back(type, image);
  return image;
}

void RowHasher::AddBytes(Bytes bytes) {
  AppendMark(false);
  AppendBytes(bytes);
}

void RowHasher::AppendMark(bool is_null) { hasher_.Add(is_null ? Bytes("\0", 1) : Bytes("\1", 1)); }

void RowHasher::AppendWord(int64 word) {
  char text[8];
  for (int i = 0; i < 8; ++i) text[i] = static_cast<char>(static_cast<uint64>(word) >> (8 * i) & 0xff);
  hasher_.Add({text, sizeof text});
}

void RowHasher::AppendBytes(Bytes bytes) {
  AppendWord(static_cast<int64>(bytes.size()));
  hasher_.Add(bytes);
}

void RowHasher::Add(Oid type, Datum value, bool null) {
  AppendMark(null);
  if (null) return;
  Image const image = ImageOf(type);
  switch (image.kind) {
    case Kind::kInteger:
      AppendWord(Integer(value, image.length));
      break;
    case Kind::kEnum:
      AppendBytes(pg::Call(
          [&] { return const_cast<const char *>(DatumGetCString(DirectFunctionCall1(enum_out, value))); }));
      break;
    case Kind::kVarlena:
      AppendBytes(pg::DatumBytes(value));
      break;
    case Kind::kCString:
      AppendBytes(DatumGetCString(value));
      break;
    case Kind::kFixed:
      AppendBytes(
          {reinterpret_cast<const char *>(DatumGetPointer(value)), static_cast<size_t>(image.length)});
      break;
    case Kind::kArray:
      AddArray(value);
      break;
    case Kind::kComposite:
      AddFields(value);
      break;
  }
}

void RowHasher::AddFields(Datum composite) {
  Values const fields = FieldsOf(composite);
  for (int i = 0; i < fields.count; ++i) Add(fields.types[i], fields.values[i], fields.nulls[i]);
}

void RowHasher::AddArray(Datum datum) {
  ArrayType *array = pg::Call([&] { return DatumGetArrayTypeP(datum); });
  Oid const type = ARR_ELEMTYPE(array);
  Values const elements = pg::Call([&] {
    Values found = {};
    int16 length;
    bool by_value;
    char alignment;
    get_typlenbyvalalign(type, &length, &by_value, &alignment);
    deconstruct_array(array, type, length, by_value, alignment, &found.values, &found.nulls, &found.count);
    return found;
  });
  AppendWord(ARR_NDIM(array));
  for (int i = 0; i < ARR_NDIM(array); ++i) {
    AppendWord(ARR_DIMS(array)[i]);
    AppendWord(ARR_LBOUND(array)[i]);
  }
  for (int i = 0; i < elements.count; ++i) Add(type, elements.values[i], elements.nulls[i]);
}

Hash128 RowHasher::Finish() { return hasher_.Finish(); }

uint64 RowHasher::FinishImage() {
  uint64 const image = Finish().low;
  return image != 0 ? image : 1;
}

std::string RowHashExpression(const Target &target, const std::string &alias) {
  std::string arguments;
  for (const KeyColumn &key : target.keys)
    arguments += (arguments.empty() ? "" : ", ") + alias + "." + pg::QuoteIdentifier(key.column.name);
  return "redis_migrate.row_hash(" + arguments + ")";
}

namespace {

// The hasher of a SQL function, kept for the calls of one statement and freed with its memory.
RowHasher &HasherOf(FunctionCallInfo fcinfo) {
  auto *kept = static_cast<RowHasher *>(fcinfo->flinfo->fn_extra);
  if (kept != nullptr) return *kept;
  std::unique_ptr<RowHasher> fresh;
  {
    pg::Spi spi;
    fresh = std::make_unique<RowHasher>();
  }
  auto *callback = pg::Call([&] {
    return static_cast<MemoryContextCallback *>(
        MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(MemoryContextCallback)));
  });
  RowHasher *hasher = fresh.release();
  callback->func = [](void *object) { delete static_cast<RowHasher *>(object); };
  callback->arg = hasher;
  MemoryContextRegisterResetCallback(fcinfo->flinfo->fn_mcxt, callback);
  fcinfo->flinfo->fn_extra = hasher;
  return *hasher;
}

}  // namespace

}  // namespace prm

// redis_migrate.row_hash(VARIADIC key "any") → bytea: see the SQL comment.
PRM_FUNCTION(row_hash) {
  using namespace prm;
  RowHasher &hasher = HasherOf(fcinfo);
  for (int i = 0; i < PG_NARGS(); ++i) {
    Oid const type = pg::Call([&] { return get_fn_expr_argtype(fcinfo->flinfo, i); });
    hasher.Add(type, PG_GETARG_DATUM(i), PG_ARGISNULL(i));
  }
  return pg::ByteaDatum(Pack({{hasher.Finish()}}, Packing::kHashes));
}

// redis_migrate.row_image(columns record) → bigint: see the SQL comment.
PRM_FUNCTION(row_image) {
  using namespace prm;
  RowHasher &hasher = HasherOf(fcinfo);
  hasher.AddFields(PG_GETARG_DATUM(0));
  return Int64GetDatum(static_cast<int64>(hasher.FinishImage()));
}
