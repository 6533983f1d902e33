#include "run/run_record.h"

#include "connect/database_files.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

RunRecord RunRecord::Begin(const std::string &migration, const RunParameters &parameters) {
  Oid const user = GetUserId();
  pg::AsExtensionOwner as_owner;
  RunRecord record;
  auto last = Spi::Execute(
      R"sql(SELECT r.run_id, r.level, r.position, r.started_at > CASE
                    WHEN r.live AND r.source = 'replication' AND (
                        SELECT bool_and(p.is_loaded)
                        FROM redis_migrate.live_position AS p
                        WHERE p.run_id = r.run_id)
                    THEN m.altered_at
                    ELSE m.changed_at
                END
                AND r.priority IS NOT DISTINCT FROM $2 AND r.mapping IS NOT DISTINCT FROM $3
                AND r.source = $4 AND r.prune = $5 AND r.live = $7
                AND (r.position = '' OR split_part($6, ' db=', 1) IN ('', split_part(r.position, ' db=', 1)))
                AND NOT EXISTS (
                    SELECT
                    FROM redis_migrate.run_part AS p
                    WHERE p.run_id = r.run_id AND p.level = r.level AND p.position <> ''
                        AND split_part($6, ' db=', 1) NOT IN ('', split_part(p.position, ' db=', 1)))
            FROM redis_migrate.run AS r
            JOIN redis_migrate.migration AS m USING (migration)
            WHERE r.migration = $1 AND NOT r.dry_run AND r.state IN ('running', 'stopped', 'failed')
            ORDER BY r.run_id DESC
            LIMIT 1)sql",
      {SqlParam::Text(migration), SqlParam::OptionalText(parameters.priority),
       SqlParam::OptionalText(parameters.mapping), SqlParam::Text(parameters.source),
       SqlParam::Bool(parameters.prune), SqlParam::Text(parameters.begin), SqlParam::Bool(parameters.live)});
  if (!parameters.dry_run && last.size() == 1 && last[0].Bool(3)) {
    record.id_ = last[0].Int8(0);
    record.resumed_ = true;
    record.level_ = last[0].Int4(1);
    record.position_ = last[0].Text(2);
    Spi::Execute(
        R"sql(UPDATE redis_migrate.run
              SET state = 'running', pid = pg_backend_pid(), on_error = $2, force = $3,
                  updated_at = clock_timestamp(), finished_at = NULL, sqlstate = NULL, message = NULL
              WHERE run_id = $1)sql",
        {SqlParam::Int8(record.id_), SqlParam::Text(parameters.on_error), SqlParam::Bool(parameters.force)});
    Spi::Execute(
        R"sql(UPDATE redis_migrate.run_part
              SET sqlstate = NULL, message = NULL, pid = NULL, readers = 0
              WHERE run_id = $1 AND NOT done)sql",
        {SqlParam::Int8(record.id_)});
    return record;
  }
  if (!parameters.dry_run) {
    for (const char *table : {"seen_row", "seen_batch", "deferred", "page_key"})
      Spi::Execute(std::string("DELETE FROM redis_migrate.") + table +
                       " AS x USING redis_migrate.run AS r WHERE r.run_id = x.run_id AND r.migration = $1",
                   {SqlParam::Text(migration)});
    Spi::Execute(
        R"sql(UPDATE redis_migrate.run
              SET state = 'superseded'
              WHERE migration = $1 AND NOT dry_run AND state IN ('running', 'stopped', 'failed'))sql",
        {SqlParam::Text(migration)});
  }
  auto fresh = Spi::Execute(
      R"sql(INSERT INTO redis_migrate.run (
                migration, owner, source, dry_run, priority, mapping, on_error, prune, force, live, pid,
                unlogged_mark)
            VALUES ($1, redis_migrate.stamp_owner($2), $3, $4, $5, $6, $7, $8, $9, $10, pg_backend_pid(),
                (SELECT mark FROM redis_migrate.unlogged_mark))
            RETURNING run_id)sql",
      {SqlParam::Text(migration), SqlParam::OidOf(user), SqlParam::Text(parameters.source),
       SqlParam::Bool(parameters.dry_run), SqlParam::OptionalText(parameters.priority),
       SqlParam::OptionalText(parameters.mapping), SqlParam::Text(parameters.on_error),
       SqlParam::Bool(parameters.prune), SqlParam::Bool(parameters.force), SqlParam::Bool(parameters.live)});
  record.id_ = fresh[0].Int8(0);
  return record;
}

RunRecord RunRecord::Join(int64 run_id, std::string *migration, RunParameters *parameters) {
  Oid const user = GetUserId();
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"sql(SELECT migration, priority, mapping, source, on_error, prune, level, state = 'running', force
            FROM redis_migrate.run
            WHERE run_id = $1 AND redis_migrate.owner_oid(owner) = $2 AND NOT dry_run)sql",
      {SqlParam::Int8(run_id), SqlParam::OidOf(user)});
  if (rows.size() == 0)
    throw pg::Failure(ERRCODE_UNDEFINED_OBJECT, "run " + std::to_string(run_id) + " does not exist");
  if (!rows[0].Bool(7))
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "run " + std::to_string(run_id) + " is not in progress");
  *migration = rows[0].Text(0);
  parameters->priority = rows[0].OptionalText(1);
  parameters->mapping = rows[0].OptionalText(2);
  parameters->source = rows[0].Text(3);
  parameters->on_error = rows[0].Text(4);
  parameters->prune = rows[0].Bool(5);
  parameters->force = rows[0].Bool(8);
  RunRecord record;
  record.id_ = run_id;
  record.level_ = rows[0].Int4(6);
  return record;
}

RunRecord RunRecord::Of(int64 run_id) {
  RunRecord record;
  record.id_ = run_id;
  return record;
}

void RunRecord::RemoveUnusedFiles() const {
  if (FileNames().empty()) return;
  pg::AsExtensionOwner as_owner;
  // A snapshot of this number that this run did not take belongs to an earlier installation of the extension.
  auto rows = Spi::Execute(
      R"sql(SELECT run_id FROM redis_migrate.run
            WHERE (source = 'replication' OR live) AND state IN ('running', 'stopped', 'failed') AND (run_id <> $1 OR $2))sql",
      {SqlParam::Int8(id_), SqlParam::Bool(resumed_)});
  std::set<int64> used;
  for (uint64 i = 0; i < rows.size(); ++i) used.insert(rows[i].Int8(0));
  RemoveFilesOfOtherRuns(used);
}

namespace {

// Notes that time has passed, and moves the window over which the rate is measured. The keys are counted
// twice a minute only.
constexpr char kSetTime[] = R"sql(
    active_time = active_time + (clock_timestamp() - updated_at), updated_at = clock_timestamp(),
    window_began = CASE WHEN active_time < next_began + interval '30 s' THEN window_began ELSE next_began END,
    window_read = CASE WHEN active_time < next_began + interval '30 s' THEN window_read ELSE next_read END,
    next_began = CASE WHEN active_time < next_began + interval '30 s' THEN next_began
                      ELSE active_time + (clock_timestamp() - updated_at) END,
    next_read = CASE WHEN active_time < next_began + interval '30 s' THEN next_read
                     ELSE (SELECT coalesce(sum(keys), 0) FROM redis_migrate.run_count
                           WHERE run_id = $1 AND outcome = 'read') END)sql";

}  // namespace

void RunRecord::Touch() {
  pg::AsExtensionOwner as_owner;
  Spi::ExecuteKept(std::string("UPDATE redis_migrate.run SET") + kSetTime + " WHERE run_id = $1",
                   {SqlParam::Int8(id_)});
}

void RunRecord::NoteRestart() {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run AS r
            SET restarts = restarts + 1, window_began = active_time, next_began = active_time,
                window_read = left_over.keys, next_read = left_over.keys
            FROM (SELECT coalesce(sum(keys), 0) AS keys FROM redis_migrate.run_count
                  WHERE run_id = $1 AND outcome = 'read') AS left_over
            WHERE run_id = $1)sql",
      {SqlParam::Int8(id_)});
}

void RunRecord::SetPruneOutcome(const std::string &mapping, const std::string &outcome,
                                const std::string &why) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.mapping_count
            SET prune = $3, prune_detail = NULLIF($4, '')
            WHERE run_id = $1 AND part = 0 AND mapping = $2)sql",
      {SqlParam::Int8(id_), SqlParam::Text(mapping), SqlParam::Text(outcome), SqlParam::Text(why)});
}

void RunRecord::AddMappings(const std::vector<std::string> &mappings) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(INSERT INTO redis_migrate.mapping_count AS c (run_id, part, mapping, claims_unchanged)
            SELECT $1, 0, m.mapping,
                NOT EXISTS (SELECT FROM redis_migrate.ledger_segment AS s WHERE s.mapping_id = m.mapping_id)
                AND NOT EXISTS (
                    SELECT
                    FROM redis_migrate.ledger_batch AS b
                    WHERE b.mapping_id = m.mapping_id AND NOT b.merged)
            FROM redis_migrate.mapping AS m
            JOIN redis_migrate.run AS r USING (migration)
            WHERE r.run_id = $1 AND m.mapping = ANY ($2)
            ON CONFLICT (run_id, part, mapping)
            DO UPDATE SET claims_unchanged = true WHERE excluded.claims_unchanged AND NOT c.claims_unchanged)sql",
      {SqlParam::Int8(id_), SqlParam::TextArray(mappings)});
}

std::set<std::string> RunRecord::ReadClaiming() const {
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      "SELECT mapping FROM redis_migrate.mapping_count WHERE run_id = $1 AND part = 0 AND claims_unchanged",
      {SqlParam::Int8(id_)});
  std::set<std::string> mappings;
  for (uint64 i = 0; i < rows.size(); ++i) mappings.insert(rows[i].Text(0));
  return mappings;
}

std::vector<RunRecord::ChangedRows> RunRecord::ReadChangedRows() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT c.mapping, m.pattern, sum(c.changed_here)::bigint, sum(c.deleted_here)::bigint
            FROM redis_migrate.mapping_count AS c
            JOIN redis_migrate.run AS r USING (run_id)
            JOIN redis_migrate.mapping AS m ON m.migration = r.migration AND m.mapping = c.mapping
            WHERE c.run_id = $1
            GROUP BY c.mapping, m.pattern, m.mapping_id
            HAVING sum(c.changed_here) + sum(c.deleted_here) > 0
            ORDER BY m.mapping_id)sql",
      {SqlParam::Int8(id_)});
  std::vector<ChangedRows> changed;
  for (uint64 i = 0; i < rows.size(); ++i)
    changed.push_back({rows[i].Text(0), rows[i].Text(1), rows[i].Int8(2), rows[i].Int8(3)});
  return changed;
}

std::vector<RunRecord::MappingRows> RunRecord::ReadMappingRows() const {
  pg::AsExtensionOwner as_owner;
  auto const rows = Spi::Execute(
      R"sql(SELECT c.mapping, coalesce(m.target, ''), sum(c.inserted)::bigint, sum(c.updated)::bigint,
                sum(c.unchanged)::bigint, sum(c.deleted)::bigint
            FROM redis_migrate.mapping_count AS c
            JOIN redis_migrate.run AS r USING (run_id)
            LEFT JOIN redis_migrate.mapping AS m ON m.migration = r.migration AND m.mapping = c.mapping
            WHERE c.run_id = $1
            GROUP BY c.mapping, m.target, m.mapping_id
            ORDER BY m.mapping_id)sql",
      {SqlParam::Int8(id_)});
  std::vector<MappingRows> found;
  for (uint64 i = 0; i < rows.size(); ++i) {
    MappingRows row = {rows[i].Text(0), rows[i].Text(1), {}};
    row.counts.inserted = rows[i].Int8(2);
    row.counts.updated = rows[i].Int8(3);
    row.counts.unchanged = rows[i].Int8(4);
    row.counts.deleted = rows[i].Int8(5);
    found.push_back(std::move(row));
  }
  return found;
}

void RunRecord::SetEstimate(int64 keys) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.run SET keys_estimated = $2 WHERE run_id = $1",
               {SqlParam::Int8(id_), SqlParam::Int8(keys)});
}

void RunRecord::AddExpected(int level, uint64 keys) {
  if (keys == 0 || level > 0 || part_ > 1) return;
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run
            SET keys_estimated = coalesce(keys_estimated, 0) + $2
            WHERE run_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Int8(static_cast<int64>(keys))});
}

void RunRecord::AddEvicted(int64 keys) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute("UPDATE redis_migrate.run SET evicted = coalesce(evicted, 0) + $2 WHERE run_id = $1",
               {SqlParam::Int8(id_), SqlParam::Int8(keys)});
}

// A statement for all counts of a table: a live run saves small batches all the time.
void RunRecord::SaveCounts(const Tally &tally, int level) const {
  std::vector<std::string> patterns, outcomes, reasons, mappings;
  std::vector<int64> keys;
  std::vector<int> unmapped;
  auto count = [&](const Tally::Pattern &pattern, const char *outcome, const std::string &reason,
                   int64 number) {
    patterns.push_back(pattern.value_or(""));
    unmapped.push_back(pattern ? 0 : 1);
    outcomes.emplace_back(outcome);
    reasons.push_back(reason);
    keys.push_back(number);
  };
  for (const auto &[pattern, number] : tally.read) count(pattern, "read", "", number);
  for (const auto &[what, number] : tally.outcomes)
    count(std::get<0>(what), kOutcomeNames[static_cast<int>(std::get<1>(what))], std::get<2>(what), number);
  if (!keys.empty())
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.run_count AS c (run_id, level, part, pattern, outcome, reason, keys)
              SELECT $1, $2, $3, CASE WHEN k.unmapped = 0 THEN k.pattern END, k.outcome, NULLIF(k.reason, ''),
                  k.keys
              FROM unnest($4, $5, $6, $7, $8) AS k (pattern, unmapped, outcome, reason, keys)
              ON CONFLICT (run_id, level, part, pattern, outcome, reason)
              DO UPDATE SET keys = c.keys + excluded.keys)sql",
        {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_), SqlParam::TextArray(patterns),
         SqlParam::Int4Array(unmapped), SqlParam::TextArray(outcomes), SqlParam::TextArray(reasons),
         SqlParam::Int8Array(keys)});
  std::vector<int64> inserted, updated, unchanged, folded, deleted, changed_here, expired, unclear;
  for (const auto &[mapping, rows] : tally.rows) {
    mappings.push_back(mapping);
    inserted.push_back(rows.inserted);
    updated.push_back(rows.updated);
    unchanged.push_back(rows.unchanged);
    folded.push_back(rows.folded);
    deleted.push_back(rows.deleted);
    changed_here.push_back(rows.changed_here);
    expired.push_back(rows.expired);
    unclear.push_back(rows.unclear);
  }
  if (!mappings.empty())
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.mapping_count AS c (
                  run_id, part, mapping, inserted, updated, unchanged, folded, deleted, changed_here,
                  expired, unclear)
              SELECT $1, $2, k.*
              FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11) AS k
              ON CONFLICT (run_id, part, mapping)
              DO UPDATE SET inserted = c.inserted + excluded.inserted,
                  updated = c.updated + excluded.updated, unchanged = c.unchanged + excluded.unchanged,
                  folded = c.folded + excluded.folded, deleted = c.deleted + excluded.deleted,
                  changed_here = c.changed_here + excluded.changed_here,
                  expired = c.expired + excluded.expired, unclear = c.unclear + excluded.unclear)sql",
        {SqlParam::Int8(id_), SqlParam::Int4(part_), SqlParam::TextArray(mappings),
         SqlParam::Int8Array(inserted), SqlParam::Int8Array(updated), SqlParam::Int8Array(unchanged),
         SqlParam::Int8Array(folded), SqlParam::Int8Array(deleted), SqlParam::Int8Array(changed_here),
         SqlParam::Int8Array(expired), SqlParam::Int8Array(unclear)});
}

void RunRecord::Save(const Tally &tally, int level, const std::string &position) {
  pg::AsExtensionOwner as_owner;
  SaveCounts(tally, level);
  for (const Reject &reject : tally.rejects) {
    auto type = source::TypeOf(*reject.entry);
    bool has_payload = reject.entry->state == source::EntryState::kRead;
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.reject (
                  run_id, level, part, db, key_bytes, type, pattern, mapping, rule, sqlstate, message,
                  partial, payload, expires_at)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14))sql",
        {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_), SqlParam::Int4(reject.entry->db),
         SqlParam::Bytea(reject.entry->key),
         has_payload && type.ok() ? SqlParam::Text(rdb::TypeName(type.value())) : SqlParam{TEXTOID, 0, true},
         SqlParam::OptionalText(reject.pattern), SqlParam::OptionalText(reject.mapping),
         SqlParam::Text(reject.rule), SqlParam::OptionalText(reject.sqlstate), SqlParam::Text(reject.message),
         SqlParam::Bool(reject.partial),
         has_payload ? SqlParam::Bytea(pg::ValueOrThrow(source::DumpOf(*reject.entry)))
                     : SqlParam{BYTEAOID, 0, true},
         ExpiryParam(*reject.entry)});
  }
  for (const source::Entry *entry : tally.deferred)
    Spi::ExecuteKept(
        R"sql(INSERT INTO redis_migrate.deferred
              VALUES ($1, $2, $3, $4, redis_migrate.index_key($5), $5, $6, $7)
              ON CONFLICT DO NOTHING)sql",
        {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_), SqlParam::Int4(entry->db),
         SqlParam::Bytea(entry->key), SqlParam::Bytea(pg::ValueOrThrow(source::DumpOf(*entry))),
         ExpiryParam(*entry)});
  if (reads_part_) {
    RequireRead(Spi::ExecuteKept(
                    R"sql(UPDATE redis_migrate.run_part
                          SET position = $4, bytes_read = bytes_read + $5, batches = batches + 1,
                              updated_at = clock_timestamp()
                          WHERE run_id = $1 AND level = $2 AND part = $3 AND pid = pg_backend_pid())sql",
                    {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_),
                     SqlParam::Text(position), SqlParam::Int8(static_cast<int64>(tally.bytes))}),
                PartsOf(level).work(), part_);
    return;
  }
  if (part_ != 0) return;  // the position is that of the links
  Spi::ExecuteKept(std::string(R"sql(UPDATE redis_migrate.run
                        SET level = $2, position = $3, bytes_read = bytes_read + $4, batches = batches + 1,)sql") +
                       kSetTime + " WHERE run_id = $1",
                   {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Text(position),
                    SqlParam::Int8(static_cast<int64>(tally.bytes))});
  level_ = level;
  position_ = position;
}

bool RunRecord::HasReject(int level, const source::Entry &entry) const {
  pg::AsExtensionOwner as_owner;
  return Spi::ExecuteKept(
             R"sql(SELECT EXISTS (
                       SELECT FROM redis_migrate.reject
                       WHERE run_id = $1 AND level = $2 AND db = $3 AND key_bytes = $4))sql",
             {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(entry.db),
              SqlParam::Bytea(entry.key)})[0]
      .Bool(0);
}

void RunRecord::RestartLevel(int level) {
  pg::AsExtensionOwner as_owner;
  for (const char *table : {"run_count", "reject", "deferred"})
    Spi::Execute(
        std::string("DELETE FROM redis_migrate.") + table + " WHERE run_id = $1 AND level = $2 AND part = $3",
        {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_)});
  NotePageKeys({}, false);
  NoteRestart();
  if (part_ != 0) {
    RequireRead(
        Spi::Execute("UPDATE redis_migrate.run_part SET position = '' WHERE run_id = $1 AND level = $2 AND "
                     "part = $3 AND pid = pg_backend_pid()",
                     {SqlParam::Int8(id_), SqlParam::Int4(level), SqlParam::Int4(part_)}),
        PartsOf(level).work(), part_);
    return;
  }
  BeginLevel(level);
}

// The last level that was saved may be the one before.
void RunRecord::BeginLevel(int level) {
  pg::AsExtensionOwner as_owner;
  // A file tells the sizes of its databases again as it is read.
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run
            SET level = $2, position = '',
                keys_estimated = CASE WHEN $2 > 0 OR source NOT IN ('rdb', 'replication') THEN keys_estimated END
            WHERE run_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Int4(level)});
  level_ = level;
  position_.clear();
}

void RunRecord::Finish(const std::string &state, const std::optional<std::string> &sqlstate,
                       const std::optional<std::string> &message) {
  pg::AsExtensionOwner as_owner;
  Spi::Execute(
      R"sql(UPDATE redis_migrate.run
            SET state = $2, finished_at = clock_timestamp(), updated_at = clock_timestamp(),
                active_time = active_time + (clock_timestamp() - updated_at), sqlstate = $3, message = $4
            WHERE run_id = $1)sql",
      {SqlParam::Int8(id_), SqlParam::Text(state), SqlParam::OptionalText(sqlstate),
       SqlParam::OptionalText(message)});
  if (state == "completed") ForgetSeen();
}

void RunRecord::ForgetSeen() const {
  pg::AsExtensionOwner as_owner;
  for (const char *table : {"seen_row", "seen_batch"})
    Spi::Execute(std::string("DELETE FROM redis_migrate.") + table + " WHERE run_id = $1",
                 {SqlParam::Int8(id_)});
}

RunRecord::Sums RunRecord::ReadSums() const {
  pg::AsExtensionOwner as_owner;
  Sums sums;
  auto rows = Spi::Execute(
      "SELECT outcome, sum(keys)::int8 FROM redis_migrate.run_count WHERE run_id = $1 GROUP BY outcome",
      {SqlParam::Int8(id_)});
  for (uint64 i = 0; i < rows.size(); ++i) {
    if (rows[i].Text(0) == "read")
      sums.read = rows[i].Int8(1);
    else
      sums.outcomes[rows[i].Text(0)] = rows[i].Int8(1);
  }
  rows = Spi::Execute(
      R"sql(SELECT format('%s: %s read, %s with an outcome', coalesce(pattern, 'unmapped keys'),
                          coalesce(sum(keys) FILTER (WHERE outcome = 'read'), 0),
                          coalesce(sum(keys) FILTER (WHERE outcome <> 'read'), 0))
            FROM redis_migrate.run_count
            WHERE run_id = $1
            GROUP BY pattern
            HAVING coalesce(sum(keys) FILTER (WHERE outcome = 'read'), 0)
                <> coalesce(sum(keys) FILTER (WHERE outcome <> 'read'), 0)
            ORDER BY pattern
            LIMIT 1)sql",
      {SqlParam::Int8(id_)});
  if (rows.size() > 0) sums.unbalanced = rows[0].Text(0);
  rows = Spi::Execute(
      R"sql(SELECT string_agg(format('%s %s', n, rule), ', ' ORDER BY n DESC, rule)
            FROM (SELECT rule, count(*) AS n
                  FROM redis_migrate.reject
                  WHERE run_id = $1 AND settled_at IS NULL
                  GROUP BY rule) AS r)sql",
      {SqlParam::Int8(id_)});
  sums.reject_summary = rows[0].Text(0);
  rows = Spi::Execute(
      R"sql(SELECT active_time, coalesce(evicted, 0),
                (SELECT coalesce(sum(deleted), 0)::int8 FROM redis_migrate.mapping_count WHERE run_id = $1)
            FROM redis_migrate.run
            WHERE run_id = $1)sql",
      {SqlParam::Int8(id_)});
  sums.seconds = pg::SecondsOfUs(pg::IntervalUs(rows[0].Value(0)));
  sums.evicted = rows[0].Int8(1);
  sums.rows_deleted = rows[0].Int8(2);
  return sums;
}

}  // namespace prm
