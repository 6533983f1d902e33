#include "write/index_key.h"

#include "pg/entry.h"
#include "pg/memory.h"

namespace prm {

namespace {

constexpr size_t kWhole = 256;

}  // namespace

std::string IndexKey(Bytes name) {
  if (name.size() <= kWhole) return std::string(name);
  uint8 digest[PG_SHA256_DIGEST_LENGTH];
  bool const done = pg::Call([&] {
    pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
    bool const hashed =
        context != nullptr && pg_cryptohash_init(context) >= 0 &&
        pg_cryptohash_update(context, reinterpret_cast<const uint8 *>(name.data()), name.size()) >= 0 &&
        pg_cryptohash_final(context, digest, sizeof digest) >= 0;
    if (context != nullptr) pg_cryptohash_free(context);
    return hashed;
  });
  if (!done) throw pg::Failure(ERRCODE_OUT_OF_MEMORY, "could not compute a SHA-256");
  std::string key(name.substr(0, kWhole));
  key.append(reinterpret_cast<const char *>(digest), sizeof digest);
  return key;
}

}  // namespace prm

// redis_migrate.index_key(name bytea) → bytea: see the SQL comment.
PRM_FUNCTION(index_key) {
  return prm::pg::ByteaDatum(prm::IndexKey(prm::pg::DatumBytes(PG_GETARG_DATUM(0))));
}
