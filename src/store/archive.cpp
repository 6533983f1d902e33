#include "store/archive.h"

#include "core/printable.h"
#include "ledger/ledger.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/transaction.h"
#include "store/comparison.h"
#include "write/index_key.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

Mapping SmallPayloads(const std::string &migration) {
  Mapping mapping;
  mapping.name = "(archive)";
  mapping.pattern = "*";
  mapping.target = "redis_migrate.archived_key";
  mapping.query = "SELECT " + pg::QuoteLiteral(migration) +
                  "::text AS migration, db, redis_migrate.index_key(key_bytes) AS index_key, key_bytes, "
                  "type, payload, octet_length(payload)::bigint AS "
                  "payload_size, expires_at FROM redis_batch";
  mapping.key_columns = {"migration", "db", "index_key"};
  mapping.on_conflict = "update";
  mapping.on_delete = "keep";
  mapping.mode = "upsert";
  mapping.no_row = "reject";
  mapping.atomic = "key";
  mapping.exclusive = true;
  mapping.journal = false;
  mapping.ledger = "none";
  mapping.search_path = "pg_catalog, pg_temp";
  mapping.timezone = "UTC";
  mapping.datestyle = "ISO, YMD";
  mapping.intervalstyle = "postgres";
  return mapping;
}

// The payload that is archived of a key, chunk by chunk.
class ArchivedPayload {
 public:
  explicit ArchivedPayload(const source::Entry &entry)
      : entry_(entry), encoded_(entry.plain ? pg::ValueOrThrow(source::DumpOf(entry)) : std::string()) {}
  uint64 size() const { return entry_.plain ? encoded_.size() : source::PayloadSize(entry_); }
  // Valid until the next call.
  Bytes Chunk(uint64 at) {
    if (entry_.plain) return Bytes(encoded_).substr(at, kArchiveChunkBytes);
    return pg::ValueOrThrow(source::PayloadPart(entry_, at, kArchiveChunkBytes, scratch_));
  }

 private:
  const source::Entry &entry_;
  std::string const encoded_;
  std::string scratch_;
};

bool NeedsChunks(const source::Entry &entry) { return source::PayloadSize(entry) > kArchiveChunkBytes; }

// Decodes a value and keeps nothing of it.
class Checker : public rdb::ValueVisitor {
 public:
  void CheckInterrupts() override { pg::CheckInterrupts(); }
};

}  // namespace

Archive::Archive(const std::string &migration)
    : migration_(migration),
      mapping_(SmallPayloads(migration)),
      group_(pg::ValueOrThrow(KeyPattern::Parse("*")), {&mapping_}, true) {}

std::vector<const source::Entry *> Archive::Store(const std::vector<const source::Entry *> &entries,
                                                  const BatchOptions &options, Tally &tally) {
  std::vector<const source::Entry *> small;
  std::vector<const source::Entry *> left;
  for (const source::Entry *entry : entries) {
    Checker checker;
    const Status decoded = source::Decode(*entry, checker);
    if (!decoded.ok()) {
      Reject(*entry, decoded.error(), tally);
    } else if (!NeedsChunks(*entry)) {
      small.push_back(entry);
    } else if (options.comparison != nullptr) {
      CompareChunks(*entry, *options.comparison);
    } else if (options.subtransactions != nullptr && *options.subtransactions <= 0) {
      left.push_back(entry);
    } else {
      StoreInChunks(*entry, options, tally);
      if (options.subtransactions != nullptr) --*options.subtransactions;
    }
  }
  for (const source::Entry *entry : group_.Process(small, options, tally)) left.push_back(entry);
  if (options.comparison == nullptr) DropChunks(small);
  return left;
}

// Nobody could read it later, so it is rejected now.
void Archive::Reject(const source::Entry &entry, const Error &error, Tally &tally) {
  const std::string rule = error.code == ErrorCode::kUnsupported ? "unsupported_payload" : "corrupt_payload";
  tally.Count(&entry, std::nullopt, Outcome::kRejected, rule);
  tally.rejects.push_back({&entry, std::nullopt, mapping_.name, rule, std::nullopt, error.message, false});
}

void Archive::StoreInChunks(const source::Entry &entry, const BatchOptions &options, Tally &tally) {
  pg::AsExtensionOwner as_owner;
  pg::Context context("redis_migrate archive");
  pg::SwitchContext in_context(context.get());
  std::string what;
  try {
    pg::InSubtransaction([&] { what = WriteChunks(entry); });
  } catch (const pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) != pg::Fault::kRow) throw;
    std::string state = pg::SqlStateText(error.sqlstate());
    tally.Count(&entry, std::nullopt, Outcome::kRejected, state);
    tally.rejects.push_back({&entry, std::nullopt, mapping_.name, state, state, error.what(), false});
    return;
  }
  if (options.seen_run) NoteSeen(entry, *options.seen_run);
  RowCounts &counts = tally.rows[mapping_.name];
  ++(what == "inserted" ? counts.inserted : what == "updated" ? counts.updated : counts.unchanged);
  tally.Count(&entry, std::nullopt, Outcome::kArchived, what);
  if (options.preview == nullptr) return;
  pg::Rows row = Spi::Execute(
      R"sql(SELECT (to_jsonb(a) - $4)::text
            FROM redis_migrate.archived_key AS a
            WHERE migration = $1 AND db = $2 AND index_key = $3)sql",
      {SqlParam::Text(migration_), SqlParam::Int4(entry.db), SqlParam::Bytea(IndexKey(entry.key)),
       SqlParam::TextArray(options.preview_bytes
                               ? std::vector<std::string>()
                               : std::vector<std::string>{"index_key", "key_bytes", "payload"})});
  options.preview->push_back({&entry, mapping_.name, row[0].Text(0)});
}

void Archive::CompareChunks(const source::Entry &entry, BatchComparison &comparison) {
  pg::AsExtensionOwner as_owner;
  pg::Context context("redis_migrate archive");
  pg::SwitchContext in_context(context.get());
  std::vector<SqlParam> const key = {SqlParam::Text(migration_), SqlParam::Int4(entry.db),
                                     SqlParam::Bytea(IndexKey(entry.key))};
  ArchivedPayload payload(entry);
  std::vector<SqlParam> row = key;
  row.push_back(SqlParam::Int8(static_cast<int64>(payload.size())));
  row.push_back(ExpiryParam(entry));
  pg::Rows const stored = Spi::Execute(
      R"sql(SELECT payload IS NULL AND payload_size = $4,
                expires_at IS NOT DISTINCT FROM $5 OR abs(extract(epoch FROM expires_at - $5)) <= 1
            FROM redis_migrate.archived_key
            WHERE migration = $1 AND db = $2 AND index_key = $3)sql",
      row);
  bool is_same = stored.size() > 0 && stored[0].Bool(0);
  pg::Context chunk_context("redis_migrate chunk");
  int32 chunk = 0;
  for (size_t at = 0; is_same && at < payload.size(); at += kArchiveChunkBytes, ++chunk) {
    pg::SwitchContext in_chunk(chunk_context.get());
    std::vector<SqlParam> bytes = {key[0], key[1], key[2], SqlParam::Int4(chunk),
                                   SqlParam::Bytea(payload.Chunk(at))};
    pg::Rows const same = Spi::Execute(
        R"sql(SELECT bytes = $5
              FROM redis_migrate.archive_chunk
              WHERE migration = $1 AND db = $2 AND index_key = $3 AND chunk_no = $4)sql",
        bytes);
    is_same = same.size() > 0 && same[0].Bool(0);
    chunk_context.Reset();
  }
  bool const is_timely = stored.size() > 0 && !stored[0].IsNull(1) && stored[0].Bool(1);
  if (is_same && is_timely) {
    ++comparison.equal[mapping_.name].equal;
    return;
  }
  BatchComparison::OfKey &found = comparison.unequal[&entry];
  ComparedRows &counts = found.rows[mapping_.name];
  RowDifference difference = {mapping_.name, "different", Printable(entry.key), "payload", {}, {}};
  if (stored.size() == 0) {
    ++counts.missing;
    difference.kind = "missing";
    difference.column.reset();
  } else if (is_same) {
    ++counts.expiry_differs;
    difference.kind = "expiry_differs";
    difference.column = "expires_at";
  } else {
    ++counts.different;
  }
  if (comparison.most_differences > 0) found.differences.push_back(std::move(difference));
}

// The identity of a row as GroupStore notes it of the small ones.
std::string Archive::RowKeyExpression() const {
  return Ledger(mapping_, LoadTarget(mapping_)).RowKeyExpression("a");
}

void Archive::NoteSeen(const source::Entry &entry, int64 run_id) {
  pg::LocalSettings settings;
  settings.Set("bytea_output", "hex");
  Spi::Execute("INSERT INTO redis_migrate.seen_row (run_id, mapping_id, row_key, lost) SELECT $1, $2, " +
                   RowKeyExpression() +
                   ", false FROM redis_migrate.archived_key AS a WHERE a.migration = $3 AND a.db = $4 AND "
                   "a.index_key = $5",
               {SqlParam::Int8(run_id), SqlParam::Int8(mapping_.id), SqlParam::Text(migration_),
                SqlParam::Int4(entry.db), SqlParam::Bytea(IndexKey(entry.key))});
}

std::pair<int64, int64> Archive::Prune(int64 run_id) {
  pg::AsExtensionOwner as_owner;
  pg::LocalSettings settings;
  settings.Set("bytea_output", "hex");
  settings.Set("enable_nestloop", "off");
  int64 const before = Spi::Execute("SELECT count(*) FROM redis_migrate.archived_key WHERE migration = $1",
                                    {SqlParam::Text(migration_)})[0]
                           .Int8(0);
  // Keys that the run rejected are in Redis, too.
  auto const deleted = Spi::Execute(
      R"sql(DELETE FROM redis_migrate.archived_key AS a
            WHERE a.migration = $1
              AND NOT EXISTS (SELECT FROM redis_migrate.reject AS r
                              WHERE r.run_id = $2 AND r.pattern IS NULL
                                AND r.db = a.db AND r.key_bytes = a.key_bytes)
              AND NOT EXISTS (SELECT FROM redis_migrate.seen_row AS s
                              WHERE s.run_id = $2 AND s.mapping_id = $3 AND s.row_key = )sql" +
          RowKeyExpression() + ")",
      {SqlParam::Text(migration_), SqlParam::Int8(run_id), SqlParam::Int8(mapping_.id)});
  return {static_cast<int64>(deleted.processed()), before};
}

// Returns the outcome of the key: inserted, updated, unchanged.
const char *Archive::WriteChunks(const source::Entry &entry) {
  ArchivedPayload payload(entry);
  std::vector<SqlParam> row = {SqlParam::Text(migration_),
                               SqlParam::Int4(entry.db),
                               SqlParam::Bytea(IndexKey(entry.key)),
                               SqlParam::Text(rdb::TypeName(source::TypeOf(entry).value())),
                               SqlParam::Int8(static_cast<int64>(payload.size())),
                               ExpiryParam(entry),
                               SqlParam::Bytea(entry.key)};
  bool is_new = Spi::Execute(
                    R"sql(INSERT INTO redis_migrate.archived_key (
                              migration, db, index_key, type, payload, payload_size, expires_at, key_bytes)
                          VALUES ($1, $2, $3, $4, NULL, $5, $6, $7)
                          ON CONFLICT DO NOTHING)sql",
                    row)
                    .processed() > 0;
  const char *const replace =
      R"sql(UPDATE redis_migrate.archived_key
            SET type = $4, payload = NULL, payload_size = $5, expires_at = $6
            WHERE migration = $1 AND db = $2 AND index_key = $3
                AND (type <> $4 OR payload IS NOT NULL OR payload_size <> $5
                     OR expires_at IS DISTINCT FROM $6))sql";
  bool changed = !is_new && Spi::Execute(replace, row).processed() > 0;
  pg::Context context("redis_migrate chunk");
  int32 chunks = 0;
  for (size_t at = 0; at < payload.size(); at += kArchiveChunkBytes, ++chunks) {
    pg::SwitchContext in_context(context.get());
    changed = Spi::Execute(
                  R"sql(INSERT INTO redis_migrate.archive_chunk AS c
                        VALUES ($1, $2, $3, $4, $5)
                        ON CONFLICT (migration, db, index_key, chunk_no)
                        DO UPDATE SET bytes = excluded.bytes
                        WHERE c.bytes <> excluded.bytes)sql",
                  {row[0], row[1], row[2], SqlParam::Int4(chunks), SqlParam::Bytea(payload.Chunk(at))})
                      .processed() > 0 ||
              changed;
    context.Reset();
  }
  Spi::Execute(
      R"sql(DELETE FROM redis_migrate.archive_chunk
            WHERE migration = $1 AND db = $2 AND index_key = $3 AND chunk_no >= $4)sql",
      {row[0], row[1], row[2], SqlParam::Int4(chunks)});
  return is_new ? "inserted" : changed ? "updated" : "unchanged";
}

// Drops the chunks of keys whose payloads were large and are small now.
void Archive::DropChunks(const std::vector<const source::Entry *> &entries) {
  if (entries.empty()) return;
  pg::AsExtensionOwner as_owner;
  if (!Spi::Execute("SELECT EXISTS (SELECT FROM redis_migrate.archive_chunk WHERE migration = $1)",
                    {SqlParam::Text(migration_)})[0]
           .Bool(0))
    return;
  std::vector<int> dbs;
  std::vector<Bytes> keys;
  for (const source::Entry *entry : entries) {
    dbs.push_back(entry->db);
    keys.push_back(entry->key);
  }
  Spi::Execute(
      R"sql(DELETE FROM redis_migrate.archive_chunk AS c
            USING unnest($2, $3) AS k (db, key_bytes),
                LATERAL (
                    SELECT
                    FROM redis_migrate.archived_key
                    WHERE migration = $1 AND db = k.db
                        AND index_key = redis_migrate.index_key(k.key_bytes) AND payload IS NOT NULL
                    OFFSET 0) AS small
            WHERE c.migration = $1 AND c.db = k.db AND c.index_key = redis_migrate.index_key(k.key_bytes))sql",
      {SqlParam::Text(migration_), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(keys)});
}

bool Archive::IsEmpty() const {
  pg::AsExtensionOwner as_owner;
  return !Spi::Execute("SELECT EXISTS (SELECT FROM redis_migrate.archived_key WHERE migration = $1)",
                       {SqlParam::Text(migration_)})[0]
              .Bool(0);
}

void Archive::Forget(const Tally::Outcomes &outcomes) {
  std::vector<const source::Entry *> migrated;
  for (const auto &[entry, outcome] : outcomes)
    if (outcome.first == Outcome::kMigrated) migrated.push_back(entry);
  Delete(migrated);
}

void Archive::Delete(const std::vector<const source::Entry *> &entries) {
  if (entries.empty()) return;
  std::vector<int> dbs;
  std::vector<Bytes> keys;
  for (const source::Entry *entry : entries) {
    dbs.push_back(entry->db);
    keys.push_back(entry->key);
  }
  pg::AsExtensionOwner as_owner;
  // LATERAL and OFFSET make it one look-up in the primary key for each key, where the planner would read the
  // archive.
  Spi::ExecuteKept(
      R"sql(DELETE FROM redis_migrate.archived_key AS a
            USING unnest($2, $3) AS k (db, key_bytes),
                LATERAL (
                    SELECT ctid
                    FROM redis_migrate.archived_key
                    WHERE migration = $1 AND db = k.db AND index_key = redis_migrate.index_key(k.key_bytes)
                    OFFSET 0) AS found
            WHERE a.ctid = found.ctid)sql",
      {SqlParam::Text(migration_), SqlParam::Int4Array(dbs), SqlParam::ByteaArray(keys)});
}

}  // namespace prm
