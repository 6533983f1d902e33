#include "expiry/predicate.h"

#include "expiry/job.h"
#include "pg/entry.h"
#include "pg/memory.h"
#include "pg/time.h"
#include "pg/transaction.h"

namespace prm::expiry {

using pg::Failure;

namespace {

// Microseconds that a number counts as one.
int64 Multiple(ColumnKind kind) { return kind == ColumnKind::kSeconds ? USECS_PER_SEC : 1000; }

Oid TypeOf(ColumnKind kind) {
  switch (kind) {
    case ColumnKind::kTimestamptz:
      return TIMESTAMPTZOID;
    case ColumnKind::kTimestamp:
      return TIMESTAMPOID;
    default:
      return INT8OID;
  }
}

const char *TypeName(ColumnKind kind) {
  switch (kind) {
    case ColumnKind::kTimestamptz:
      return "pg_catalog.timestamptz";
    case ColumnKind::kTimestamp:
      return "pg_catalog.timestamp";
    default:
      return "pg_catalog.int8";
  }
}

}  // namespace

Cutoff::Cutoff(const Policy &policy, ColumnKind kind, TimestampTz now) {
  TimestampTz cutoff = pg::Call([&] {
    Datum time = DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(now),
                                     IntervalPGetDatum(&policy.lifetime));
    return DatumGetTimestampTz(
        DirectFunctionCall2(timestamptz_mi_interval, time, IntervalPGetDatum(&policy.grace)));
  });
  type_ = TypeOf(kind);
  switch (kind) {
    case ColumnKind::kTimestamptz:
      value_ = cutoff;
      break;
    case ColumnKind::kTimestamp:
      value_ = pg::Call([&] {
        Datum zone = CStringGetTextDatum(policy.column_timezone.c_str());
        Timestamp local =
            DatumGetTimestamp(DirectFunctionCall2(timestamptz_zone, zone, TimestampTzGetDatum(cutoff)));
        if (TIMESTAMP_NOT_FINITE(local)) return local;
        // The hour that clocks show twice: while it passes for the first time, a row of it may mean the
        // second.
        TimestampTz second =
            DatumGetTimestampTz(DirectFunctionCall2(timestamp_zone, zone, TimestampGetDatum(local)));
        return local - std::max(second - cutoff, int64{0});
      });
      break;
    default:
      value_ = pg::DivideUp(pg::UnixUs(cutoff), Multiple(kind));
  }
}

TimestampTz ExpiresAt(const Policy &policy, ColumnKind kind, int64 value) {
  TimestampTz time = value;
  if (kind == ColumnKind::kTimestamp) {
    time = pg::Call([&] {
      return DatumGetTimestampTz(DirectFunctionCall2(
          timestamp_zone, CStringGetTextDatum(policy.column_timezone.c_str()), TimestampGetDatum(value)));
    });
  } else if (kind != ColumnKind::kTimestamptz) {
    time = pg::FromUnix(value, Multiple(kind));
  }
  return pg::Call([&] {
    if (TIMESTAMP_NOT_FINITE(time)) return time;
    Datum after = DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(time),
                                      IntervalPGetDatum(&policy.lifetime));
    return DatumGetTimestampTz(
        DirectFunctionCall2(timestamptz_pl_interval, after, IntervalPGetDatum(&policy.grace)));
  });
}

Statements::Statements(const Policy &policy, ColumnKind kind, std::string table)
    : policy_(policy),
      condition_(policy.condition),
      type_(TypeName(kind)),
      table_("ONLY " + std::move(table) + " AS target"),
      column_("target." + pg::QuoteIdentifier(policy.expires_column)),
      returns_(!policy.soft_delete.empty() || !policy.notify_column.empty()) {}

Statements Statements::ByTime() const {
  Statements by_time = *this;
  by_time.condition_.clear();
  return by_time;
}

std::string Statements::Expired(const std::string &guard) const {
  std::string expired = column_ + " OPERATOR(pg_catalog.<) $1";
  // A line of its own: a comment in the condition must not swallow what follows.
  if (has_condition()) {
    std::string const condition = "(" + condition_ + "\n)";
    // AND tells in better words than CASE that something is not boolean.
    expired += " AND " + (guard.empty() ? condition : guard + "(true AND " + condition + ") END");
  }
  return expired;
}

namespace {

// PostgreSQL may evaluate the condition before it compares tids, and a row for which the condition fails
// would fail the others again and again: it is not evaluated for rows that are left out, nor for others than
// those that are named or in the pages that are counted.
constexpr char kLeftOut[] = "CASE WHEN target.ctid OPERATOR(pg_catalog.=) ANY ($4) THEN false ELSE ";
constexpr char kElsewhere[] =
    "CASE WHEN target.ctid OPERATOR(pg_catalog.<) $2 OR target.ctid OPERATOR(pg_catalog.>=) $3 THEN false "
    "ELSE ";
constexpr char kNotNamed[] = "CASE WHEN target.ctid OPERATOR(pg_catalog.<>) ALL ($2) THEN false ELSE ";

const char *LeftOut(bool but_some) { return but_some ? kLeftOut : ""; }

}  // namespace

std::string Statements::ToSweep(const std::string &guard) const {
  return "redis_migrate.gives_way() AND " + Expired(guard);
}

// Rows that must go, of those that `where` allows. The predicate stands here whatever chose the rows: one
// that was changed meanwhile has a new version, for which it is evaluated again. RETURNING only for those who
// read it: it makes PostgreSQL fetch each row once more.
std::string Statements::Remove(const std::string &where, const std::string &guard) const {
  std::string statement = policy_.soft_delete.empty()
                              ? "DELETE FROM " + table_
                              : "UPDATE " + table_ + " SET " + policy_.soft_delete + "\n";
  statement += " WHERE " + where + " AND " + ToSweep(guard);
  if (!returns_) return statement;
  std::string const still = policy_.soft_delete.empty() ? "false" : "(" + Expired() + ") IS TRUE";
  std::string const key = policy_.notify_column.empty()
                              ? "NULL::pg_catalog.text"
                              : "target." + pg::QuoteIdentifier(policy_.notify_column) + "::pg_catalog.text";
  return statement + " RETURNING " + still + " AS still, " + key + " AS key";
}

namespace {

constexpr char kRemoved[] =
    R"sql((SELECT pg_catalog.count(*) FROM gone), (SELECT pg_catalog.bool_or(still) FROM gone),
              ARRAY(SELECT key FROM gone WHERE key IS NOT NULL LIMIT 1000))sql";

std::string CtidIn(const std::string &rows) {
  return "target.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(" + rows + "))";
}

constexpr char kButSome[] = " AND target.ctid OPERATOR(pg_catalog.<>) ALL ($4)";
constexpr char kPages[] = "target.ctid OPERATOR(pg_catalog.>=) $2 AND target.ctid OPERATOR(pg_catalog.<) $3";
constexpr char kNamed[] = "target.ctid OPERATOR(pg_catalog.=) ANY ($2)";

}  // namespace

std::string Statements::IndexBatch(bool but_some) const {
  return "WITH expired AS MATERIALIZED (SELECT target.ctid AS row, " + column_ + " AS expires FROM " +
         table_ + " WHERE " + ToSweep(LeftOut(but_some)) + " AND " + column_ + " OPERATOR(pg_catalog.>=) $2" +
         (but_some ? kButSome : "") + " AND redis_migrate.meets_expired_row() ORDER BY " + column_ +
         " LIMIT $3 FOR UPDATE OF target SKIP LOCKED), gone AS (" +
         Remove(CtidIn("SELECT row FROM expired"), LeftOut(but_some)) +
         (returns_ ? "" : " RETURNING false AS still, NULL::pg_catalog.text AS key") +
         R"sql() SELECT (SELECT pg_catalog.count(*) FROM expired),
                        (SELECT pg_catalog.max(expires) FROM expired)::)sql" +
         type_ + ", " + kRemoved;
}

std::string Statements::PageBatch(bool skip_locked, bool but_some) const {
  std::string const pages = std::string(kPages) + (but_some ? kButSome : "");
  std::string const guard = LeftOut(but_some);
  std::string const statement =
      skip_locked
          ? Remove(CtidIn("SELECT target.ctid FROM " + table_ + " WHERE " + pages + " AND " + ToSweep(guard) +
                          " AND redis_migrate.meets_expired_row() FOR UPDATE OF target SKIP LOCKED"),
                   guard)
          : Remove(pages, guard);
  return returns_ ? "WITH gone AS (" + statement + ") SELECT " + kRemoved : statement;
}

std::string Statements::Lock(const std::string &where, const std::string &order,
                             const std::string &guard) const {
  return "SELECT target.ctid, target.xmin, " + column_ + "::" + type_ + " FROM " + table_ + " WHERE " +
         where + " AND " + ToSweep(guard) + " AND redis_migrate.meets_expired_row()" + order +
         " FOR UPDATE OF target SKIP LOCKED";
}

std::string Statements::Find(const std::string &where, const std::string &order,
                             const std::string &guard) const {
  return "SELECT target.ctid, target.xmin, " + column_ + "::" + type_ + " FROM " + table_ + " WHERE " +
         where + " AND " + Expired(guard) + order;
}

std::string Statements::LockInOrder() const {
  return Lock(column_ + " OPERATOR(pg_catalog.>=) $2" + kButSome, " ORDER BY " + column_ + " LIMIT $3",
              kLeftOut);
}

std::string Statements::LockInPages() const {
  return Lock(std::string(kPages) + kButSome, " LIMIT $5", kLeftOut);
}

std::string Statements::LockNamed() const { return Lock(kNamed, "", kNotNamed); }

std::string Statements::FindInOrder() const {
  return Find(column_ + " OPERATOR(pg_catalog.>=) $2" + kButSome, " ORDER BY " + column_ + " LIMIT $3",
              kLeftOut);
}

std::string Statements::FindInPages() const {
  return Find(std::string(kPages) + kButSome, " LIMIT $5", kLeftOut);
}

std::string Statements::RemoveNamed() const {
  std::string const statement = Remove(kNamed, kNotNamed);
  return returns_ ? "WITH gone AS (" + statement + ") SELECT " + kRemoved : statement;
}

std::string Statements::FindNamed() const { return Find(kNamed, "", kNotNamed); }

std::string Statements::Describe(const std::vector<std::string> &columns) const {
  std::string names, values;
  for (const std::string &column : columns) {
    names += (names.empty() ? "" : ", ") + column;
    values += ", target." + column;
  }
  return "SELECT pg_catalog.left(pg_catalog.concat(" + pg::QuoteLiteral("(" + names + ")=(") +
         ", pg_catalog.concat_ws(', '" + values + "), ')'), 200) FROM " + table_ +
         " WHERE target.ctid OPERATOR(pg_catalog.=) $1";
}

std::string Statements::Oldest(bool but_some) const {
  return "SELECT " + column_ + "::" + type_ + " FROM " + table_ + " WHERE " +
         Expired(but_some ? "CASE WHEN target.ctid OPERATOR(pg_catalog.=) ANY ($2) THEN true ELSE " : "") +
         " ORDER BY " + column_ + " LIMIT 1";
}

std::string Statements::Sample() const {
  return "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE " + Expired() + ") FROM " + table_ +
         " TABLESAMPLE pg_catalog.system ($2)";
}

std::string Statements::Count() const {
  return "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE " + Expired() + ") FROM " + table_;
}

std::string Statements::CountInPages() const {
  return "SELECT pg_catalog.count(*) FROM " + table_ + " WHERE " + kPages + " AND " + Expired(kElsewhere);
}

std::string Statements::Range() const {
  return "SELECT pg_catalog.min(" + column_ + ")::pg_catalog.int8, pg_catalog.max(" + column_ +
         ")::pg_catalog.int8, pg_catalog.count(" + column_ + ") FROM " + table_ +
         " TABLESAMPLE pg_catalog.system ($1)";
}

std::string Statements::Unexpired() const {
  return "SELECT FROM " + table_ + " WHERE " + column_ + " OPERATOR(pg_catalog.>=) $1 OR " + column_ +
         " IS NULL";
}

pg::UsedObjects UsedByTexts(const Policy &policy, ColumnKind kind) {
  pg::UsedObjects used;
  bool const has_texts = !policy.condition.empty() || !policy.soft_delete.empty();
  if (has_texts && pg::Call([] { return superuser(); }))
    used.Add(Statements(policy, kind, policy.name).RemoveNamed(), {TypeOf(kind), TIDARRAYOID});
  return used;
}

void CheckCode(const Policy &policy, ColumnKind kind) {
  pg::CheckCode(policy.accepted, UsedByTexts(policy, kind), GetUserId(),
                "the expiry policy of " + policy.name, ConfirmCall(JobKind::kExpiry, policy.name));
}

int FailureOfCondition(const std::vector<ItemPointerData> &tids, const Statements &statements,
                       const Cutoff &cutoff) {
  try {
    pg::InRolledBackSubtransaction([&] {
      pg::Spi::Execute(statements.FindNamed(), {cutoff.param(), pg::SqlParam::TidArray(tids)});
    });
  } catch (const pg::PgError &error) {
    if (pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    return error.sqlstate();
  }
  return 0;
}

namespace {
int64 expired_rows_met = 0;
}

int64 TakeExpiredRowsMet() { return std::exchange(expired_rows_met, 0); }

extern "C" {
PGDLLEXPORT Datum prm_meets_expired_row(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(prm_meets_expired_row);
}

// redis_migrate.meets_expired_row(): see the SQL comment. Once per expired row, and nothing that could fail:
// without the barrier.
Datum prm_meets_expired_row(FunctionCallInfo) {
  ++expired_rows_met;
  return BoolGetDatum(true);
}

}  // namespace prm::expiry
