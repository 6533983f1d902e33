#include "expiry/policy.h"

#include "expiry/job.h"
#include "expiry/relation.h"
#include "pg/memory.h"
#include "pg/settings.h"
#include "pg/spi.h"
#include "pg/time.h"

namespace prm::expiry {

using pg::Failure;
using pg::Spi;
using pg::SqlParam;

namespace {

SqlParam OptionalTimestamp(const std::optional<TimestampTz> &time) {
  return {TIMESTAMPTZOID, time ? TimestampTzGetDatum(*time) : 0, !time};
}
SqlParam OptionalInt8(bool present, int64 value) { return {INT8OID, Int64GetDatum(value), !present}; }

Order OrderFromName(const std::string &name) {
  if (name == "index") return Order::kIndex;
  return name == "pages" ? Order::kPages : Order::kNone;
}

std::string OrderName(Order order) { return order == Order::kIndex ? "index" : "pages"; }

}  // namespace

void LoadPolicy(int64 job_id, bool lock, Policy &policy, State &state) {
  pg::AsExtensionOwner as_owner;
  // First the lock, then a snapshot: what a concurrent change has committed while it was waited for must be
  // read.
  if (lock)
    Spi::ExecuteKept("SELECT FROM redis_migrate.job WHERE job_id = $1 FOR NO KEY UPDATE",
                     {SqlParam::Int8(job_id)});
  auto rows = Spi::ExecuteKept(
      R"sql(SELECT j.name, j.relation, j.relation_owner, j.trusted_roles::text[],
                j.enabled AND (j.next_run <= clock_timestamp() OR j.scheduled_at > clock_timestamp()),
                j.search_path, j.timezone, j.datestyle, j.intervalstyle, p.expires_column,
                p.expires_attnum::int, p.unit, p.column_timezone, p.lifetime, p.grace, p.condition,
                p.soft_delete, p.notify_channel, p.notify_column, p.drop_partitions, p.batch_time,
                p.max_rate, p.max_replication_lag, p.max_xmin_age, s.started_at, s.leaf, s.sweep_order,
                s.watermark, s.next_page, s.end_page, s.batch_rows, s.batch_pages, s.rows, s.batches,
                s.backlog, s.oldest_expired_at, s.pause_reason,
                EXISTS (SELECT FROM redis_migrate.stuck_row AS r WHERE r.job_id = j.job_id)
            FROM redis_migrate.job AS j JOIN redis_migrate.expiry_policy AS p USING (job_id)
              JOIN redis_migrate.expiry_state AS s USING (job_id)
            WHERE j.job_id = $1)sql",
      {SqlParam::Int8(job_id)});
  if (rows.size() == 0)
    throw Failure(ERRCODE_UNDEFINED_OBJECT, "the expiry policy was dropped by another session");
  pg::Row row = rows[0];
  int column = 0;
  policy = Policy();
  policy.id = job_id;
  policy.name = row.Text(column++);
  policy.accepted = pg::AcceptedRelation::FromText(DatumGetObjectId(row.Value(column)), row.Value(column + 1),
                                                   row.TextArray(column + 2));
  column += 3;
  policy.due = row.Bool(column++);
  for (std::string &setting : policy.settings) setting = row.Text(column++);
  policy.expires_column = row.Text(column++);
  policy.known_attnum = row.Int4(column++);
  policy.unit = row.Text(column++);
  policy.column_timezone = row.Text(column++);
  policy.lifetime = *DatumGetIntervalP(row.Value(column++));
  policy.grace = *DatumGetIntervalP(row.Value(column++));
  policy.condition = row.Text(column++);
  policy.soft_delete = row.Text(column++);
  policy.notify_channel = row.Text(column++);
  policy.notify_column = row.Text(column++);
  policy.drop_partitions = row.Bool(column++);
  policy.batch_ms = pg::SecondsOfUs(pg::IntervalUs(row.Value(column++))) * 1000;
  policy.max_rate = row.Int4(column++);
  policy.max_replication_lag_s = pg::SecondsOfUs(pg::IntervalUs(row.Value(column++)));
  policy.max_xmin_age = row.Int4(column++);
  state = State();
  state.started = row.IsNull(column) ? 0 : DatumGetTimestampTz(row.Value(column));
  ++column;
  state.leaf = row.Text(column++);
  state.order = OrderFromName(row.Text(column++));
  state.watermark = row.Int8(column++);
  state.next_page = row.Int8(column++);
  state.end_page = row.Int8(column++);
  state.batch_rows = row.Int4(column++);
  state.batch_pages = row.Int4(column++);
  state.rows = row.Int8(column++);
  state.batches = row.Int8(column++);
  if (!row.IsNull(column)) state.backlog = row.Int8(column);
  ++column;
  if (!row.IsNull(column)) state.oldest = DatumGetTimestampTz(row.Value(column));
  ++column;
  state.pause_reason = row.Text(column++);
  state.has_stuck_rows = row.Bool(column++);
  if (policy.name == "redis_migrate.job_history") {
    policy.keeps_history = true;
    policy.lifetime = Interval();
    policy.lifetime.time = pg::settings::history_retention_s * USECS_PER_SEC;
  }
}

void SaveState(int64 job_id, const State &state, int64 batch_rows, bool batch) {
  pg::AsExtensionOwner as_owner;
  bool const under_way = state.started != 0;
  bool const index = state.order == Order::kIndex, pages = state.order == Order::kPages;
  Spi::ExecuteKept(
      R"sql(UPDATE redis_migrate.expiry_state
            SET started_at = $2, leaf = $3, sweep_order = $4, watermark = $5, next_page = $6,
                end_page = $7, batch_rows = $8, batch_pages = $9, rows = $10, batches = $11,
                rows_total = rows_total + $12, batches_total = batches_total + $13,
                skipped_total = skipped_total + $14, partitions_dropped = partitions_dropped + $15,
                backlog = $16, oldest_expired_at = $17, paused_since = CASE WHEN $18 IS NOT NULL
                    THEN coalesce(paused_since, clock_timestamp()) END, pause_reason = $18
            WHERE job_id = $1)sql",
      {SqlParam::Int8(job_id),
       OptionalTimestamp(under_way ? std::optional<TimestampTz>(state.started) : std::nullopt),
       state.leaf.empty() ? SqlParam{TEXTOID, 0, true} : SqlParam::Text(state.leaf),
       state.order == Order::kNone ? SqlParam{TEXTOID, 0, true} : SqlParam::Text(OrderName(state.order)),
       OptionalInt8(index, state.watermark), OptionalInt8(pages, state.next_page),
       OptionalInt8(pages, state.end_page), SqlParam::Int4(state.batch_rows),
       SqlParam::Int4(state.batch_pages), SqlParam::Int8(state.rows), SqlParam::Int8(state.batches),
       SqlParam::Int8(batch_rows), SqlParam::Int8(batch ? 1 : 0), SqlParam::Int8(state.skipped),
       SqlParam::Int8(state.partitions_dropped),
       OptionalInt8(state.backlog.has_value(), state.backlog.value_or(0)), OptionalTimestamp(state.oldest),
       state.pause_reason.empty() ? SqlParam{TEXTOID, 0, true} : SqlParam::Text(state.pause_reason)});
}

namespace {

std::string AlterCall(const Policy &policy, const std::string &argument) {
  return "SELECT redis_migrate.alter_expiry(" + pg::QuoteLiteral(policy.name) + ", " + argument + ");";
}

// The table as the policy last knew it; InvalidOid for one of a restored policy.
Oid KnownRelation(const Policy &policy) {
  return policy.accepted.owner.is_local() ? policy.accepted.relation : InvalidOid;
}

Oid ResolveTable(const Policy &policy) {
  Oid relation = FindRelation(policy.name, AccessShareLock);
  if (!OidIsValid(relation)) {
    std::string now = QualifiedName(KnownRelation(policy));
    std::string const drop =
        "SELECT redis_migrate.drop_expiry(" + pg::QuoteLiteral(policy.name) + ") drops the policy.";
    if (now.empty() || now == policy.name)
      throw Failure(ERRCODE_UNDEFINED_TABLE, "table " + policy.name + " of an expiry policy does not exist",
                    "", drop);
    throw Failure(
        ERRCODE_UNDEFINED_TABLE, "table " + policy.name + " of an expiry policy does not exist",
        "It seems to be called " + now + " now.",
        AlterCall(policy, "new_target => " + pg::QuoteLiteral(now)) + " lets the policy follow. " + drop);
  }
  char kind = pg::Call([&] { return get_rel_relkind(relation); });
  if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
    throw Failure(ERRCODE_WRONG_OBJECT_TYPE, policy.name + " is not a table",
                  "Rows expire in tables and partitioned tables.");
  return relation;
}

}  // namespace

Target ResolveTarget(const Policy &policy) {
  Target target;
  target.relation = ResolveTable(policy);
  target.changed = pg::CheckRelation(policy.accepted, target.relation, GetUserId(), "table " + policy.name,
                                     ConfirmCall(JobKind::kExpiry, policy.name));
  const std::string &column = policy.expires_column;
  target.attnum = pg::Call([&] { return get_attnum(target.relation, column.c_str()); });
  if (target.attnum <= 0) {
    const char *now = pg::Call([&] {
      return target.relation == KnownRelation(policy) && policy.known_attnum > 0
                 ? get_attname(target.relation, static_cast<AttrNumber>(policy.known_attnum), true)
                 : nullptr;
    });
    throw Failure(
        ERRCODE_UNDEFINED_COLUMN, "column \"" + column + "\" of table " + policy.name + " does not exist",
        now != nullptr ? "It seems to be called \"" + std::string(now) + "\" now." : "",
        now != nullptr
            ? AlterCall(policy, "expires_column => " + pg::QuoteLiteral(now)) + " lets the policy follow."
            : "");
  }
  Oid type = pg::Call(
      [&] { return getBaseType(get_atttype(target.relation, static_cast<AttrNumber>(target.attnum))); });
  bool const number = type == INT4OID || type == INT8OID;
  if (type == TIMESTAMPTZOID) {
    target.kind = ColumnKind::kTimestamptz;
  } else if (type == TIMESTAMPOID || type == DATEOID) {
    target.kind = ColumnKind::kTimestamp;
    if (policy.column_timezone.empty())
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                    "column \"" + column + "\" of table " + policy.name + " has no time zone",
                    "The application decides which zone its times are in.",
                    "Name it, such as column_timezone => 'UTC'.");
  } else if (number) {
    target.kind = policy.unit == "seconds" ? ColumnKind::kSeconds : ColumnKind::kMilliseconds;
    if (policy.unit.empty())
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                    "column \"" + column + "\" of table " + policy.name + " is a number without a unit", "",
                    "unit => 'seconds' or unit => 'milliseconds' says what it counts since 1970.");
    if (type == INT4OID && target.kind == ColumnKind::kMilliseconds)
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                    "column \"" + column + "\" of table " + policy.name + " cannot count milliseconds",
                    "The milliseconds since 1970 that an integer can hold end in January 1970.",
                    "unit => 'seconds'");
  } else {
    throw Failure(ERRCODE_DATATYPE_MISMATCH,
                  "column \"" + column + "\" of table " + policy.name + " cannot hold an expiry time", "",
                  "It must be timestamptz, timestamp, date, integer or bigint.");
  }
  if (!number && !policy.unit.empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE, "unit is for columns of type integer or bigint");
  if (target.kind != ColumnKind::kTimestamp && !policy.column_timezone.empty())
    throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                  "column_timezone is for columns of type timestamp or date");
  return target;
}

PolicySettings::PolicySettings(const Policy &policy) {
  const char *names[] = {"search_path", "timezone", "datestyle", "intervalstyle"};
  for (int i = 0; i < 4; ++i) settings_.Set(names[i], policy.settings[i]);
  settings_.Set("standard_conforming_strings", "on");
}

}  // namespace prm::expiry
