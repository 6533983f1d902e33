#include "store/row_hash.h"

#include "core/packed_hashes.h"
#include "pg/entry.h"
#include "pg/identity.h"
#include "pg/memory.h"
#include "pg/spi.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

std::optional<SipKey> ReadSecret() {
  pg::Rows const rows = Spi::ExecuteKept("SELECT secret FROM redis_migrate.ledger_secret", {});
  if (rows.size() == 0) return std::nullopt;
  Bytes const secret = pg::DatumBytes(rows[0].Value(0));
  SipKey key{};
  for (size_t i = 0; i < sizeof key; ++i)
    key[i / 8] |= uint64_t{static_cast<unsigned char>(secret[i])} << (8 * (i % 8));
  return key;
}

SipKey LoadSecret() {
  pg::AsExtensionOwner as_owner;
  if (std::optional<SipKey> const secret = ReadSecret()) return *secret;
  char drawn[16];
  if (!pg_strong_random(drawn, sizeof drawn))
    throw pg::Failure(ERRCODE_INTERNAL_ERROR, "could not draw the secret of the ledgers");
  // Waits for whoever draws it at the same time.
  Spi::Execute("INSERT INTO redis_migrate.ledger_secret (secret) VALUES ($1) ON CONFLICT DO NOTHING",
               {SqlParam::Bytea(Bytes(drawn, sizeof drawn))});
  if (std::optional<SipKey> const secret = ReadSecret()) return *secret;
  throw pg::Failure(ERRCODE_T_R_SERIALIZATION_FAILURE, "another transaction draws the secret of the ledgers",
                    "", "Try again.");
}

void AppendWord(int64 word, std::string &bytes) {
  for (int shift = 0; shift < 64; shift += 8)
    bytes += static_cast<char>(static_cast<uint64>(word) >> shift & 0xff);
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

}  // namespace

RowHasher::RowHasher() : secret_(LoadSecret()) {}

const RowHasher::Image &RowHasher::ImageOf(Oid type) {
  auto found = images_.find(type);
  if (found != images_.end()) return found->second;
  Image const image = pg::Call([&] {
    Image facts = {};
    get_typlenbyval(type, &facts.length, &facts.by_value);
    facts.is_enum = get_typtype(getBaseType(type)) == TYPTYPE_ENUM;
    return facts;
  });
  return images_.emplace(type, image).first->second;
}

void RowHasher::Add(Oid type, Datum value, bool null) {
  if (null) {
    bytes_ += '\0';
    return;
  }
  const Image &image = ImageOf(type);
  if (image.is_enum) {
    AddBytes(pg::Call(
        [&] { return const_cast<const char *>(DatumGetCString(DirectFunctionCall1(enum_out, value))); }));
  } else if (image.by_value) {
    bytes_ += '\1';
    AppendWord(Integer(value, image.length), bytes_);
  } else if (image.length == -1) {
    AddBytes(pg::DatumBytes(value));
  } else {
    AddBytes(image.length > 0 ? Bytes(reinterpret_cast<const char *>(DatumGetPointer(value)),
                                      static_cast<size_t>(image.length))
                              : Bytes(DatumGetCString(value)));
  }
}

void RowHasher::AddBytes(Bytes bytes) {
  bytes_ += '\1';
  AppendWord(static_cast<int64>(bytes.size()), bytes_);
  bytes_ += bytes;
}

Hash128 RowHasher::Finish() {
  Hash128 const hash = SipHash128(secret_, bytes_);
  bytes_.clear();
  return hash;
}

}  // namespace prm

// redis_migrate.row_hash(VARIADIC key "any") → bytea: see the SQL comment.
PRM_FUNCTION(row_hash) {
  using namespace prm;
  // Kept for the calls of one statement; freed with its memory.
  auto *hasher = static_cast<RowHasher *>(fcinfo->flinfo->fn_extra);
  if (hasher == nullptr) {
    std::unique_ptr<RowHasher> fresh;
    {
      pg::Spi spi;
      fresh = std::make_unique<RowHasher>();
    }
    auto *callback = pg::Call([&] {
      return static_cast<MemoryContextCallback *>(
          MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(MemoryContextCallback)));
    });
    hasher = fresh.release();
    callback->func = [](void *kept) { delete static_cast<RowHasher *>(kept); };
    callback->arg = hasher;
    MemoryContextRegisterResetCallback(fcinfo->flinfo->fn_mcxt, callback);
    fcinfo->flinfo->fn_extra = hasher;
  }
  for (int i = 0; i < PG_NARGS(); ++i) {
    Oid const type = pg::Call([&] { return get_fn_expr_argtype(fcinfo->flinfo, i); });
    hasher->Add(type, PG_GETARG_DATUM(i), PG_ARGISNULL(i));
  }
  return pg::ByteaDatum(PackHashes({hasher->Finish()}));
}
