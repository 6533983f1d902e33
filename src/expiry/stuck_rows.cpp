#include "expiry/stuck_rows.h"

#include "pg/identity.h"
#include "pg/transaction.h"

namespace prm::expiry {

using pg::Spi;
using pg::SqlParam;

namespace {

// Stands for the table itself; no row has it.
ItemPointerData TableTid() {
  ItemPointerData tid;
  ItemPointerSet(&tid, 0, 0);
  return tid;
}

ItemPointerData TidAt(const pg::Row &row, int column) {
  return *reinterpret_cast<ItemPointer>(DatumGetPointer(row.Value(column)));
}

int64 PageOf(const ItemPointerData &tid) { return ItemPointerGetBlockNumberNoCheck(&tid); }

using Position = std::pair<int64, int>;
Position PositionOf(const ItemPointerData &tid) {
  return {PageOf(tid), ItemPointerGetOffsetNumberNoCheck(&tid)};
}

std::vector<std::string> PrimaryKey(Oid table) {
  auto rows = Spi::Execute(
      R"(SELECT quote_ident(a.attname)
         FROM pg_index AS i, unnest(i.indkey) WITH ORDINALITY AS k (attnum, position), pg_attribute AS a
         WHERE i.indrelid = $1 AND i.indisprimary AND k.position <= i.indnkeyatts
           AND a.attrelid = i.indrelid AND a.attnum = k.attnum
         ORDER BY k.position)",
      {SqlParam::OidOf(table)});
  std::vector<std::string> columns;
  for (uint64 i = 0; i < rows.size(); ++i) columns.push_back(rows[i].Text(0));
  return columns;
}

}  // namespace

bool StuckRows::Load(const std::string &table, const std::vector<std::pair<std::string, Oid>> &tables,
                     bool any, const Statements &statements, const Cutoff &cutoff) {
  if (table == table_) return false;
  table_ = table;
  left_out_.clear();
  due_.clear();
  may_drop_table_ = true;
  key_columns_.reset();
  if (!any) return false;
  std::map<Position, std::pair<TransactionId, bool>> known;
  std::vector<ItemPointerData> tids;
  {
    pg::AsExtensionOwner as_owner;
    if (!std::exchange(counted_, true)) {
      std::vector<std::string> names;
      for (const auto &[name, oid] : tables) names.push_back(name);
      Spi::Execute("DELETE FROM redis_migrate.stuck_row WHERE job_id = $1 AND table_name <> ALL ($2)",
                   {SqlParam::Int8(job_id_), SqlParam::TextArray(names)});
      size_ = Spi::Execute("SELECT count(*) FROM redis_migrate.stuck_row WHERE job_id = $1",
                           {SqlParam::Int8(job_id_)})[0]
                  .Int8(0);
    }
    auto rows = Spi::Execute(
        R"(SELECT row_tid, row_xmin, next_try <= clock_timestamp() OR last_try > clock_timestamp(), sqlstate
           FROM redis_migrate.stuck_row WHERE job_id = $1 AND table_name = $2)",
        {SqlParam::Int8(job_id_), SqlParam::Text(table)});
    for (uint64 i = 0; i < rows.size(); ++i) {
      ItemPointerData const tid = TidAt(rows[i], 0);
      if (PositionOf(tid) == PositionOf(TableTid())) {
        may_drop_table_ = rows[i].Bool(2);
        continue;
      }
      sqlstates_.insert(pg::SqlStateCode(rows[i].Text(3)));
      known[PositionOf(tid)] = {DatumGetTransactionId(rows[i].Value(1)), rows[i].Bool(2)};
      tids.push_back(tid);
    }
  }
  if (tids.empty()) return false;
  auto find = [&](const std::string &statement) {
    auto rows = Spi::Execute(statement, {cutoff.param(), SqlParam::TidArray(tids)});
    for (uint64 i = 0; i < rows.size(); ++i) {
      RowVersion const row{TidAt(rows[i], 0), DatumGetTransactionId(rows[i].Value(1)), rows[i].Int8(2)};
      auto found = known.find(PositionOf(row.tid));
      if (found == known.end() || found->second.first != row.xmin) continue;
      left_out_.push_back(row);
      if (found->second.second) due_.push_back(row.tid);
      known.erase(found);
    }
  };
  try {
    pg::InSubtransaction([&] { find(statements.FindNamed()); });
  } catch (const pg::PgError &error) {
    // The condition fails for one of them: all that are still there stay until they are tried again.
    if (!statements.has_condition() || pg::FaultOf(error.sqlstate()) == pg::Fault::kServer) throw;
    find(statements.ByTime().FindNamed());
  }
  std::vector<ItemPointerData> gone;
  for (const ItemPointerData &tid : tids)
    if (known.count(PositionOf(tid)) > 0) gone.push_back(tid);
  Forget(gone);
  return !gone.empty();
}

std::vector<ItemPointerData> StuckRows::ExpiringFrom(int64 value) const {
  std::vector<ItemPointerData> tids;
  for (const RowVersion &row : left_out_)
    if (row.expires >= value) tids.push_back(row.tid);
  return tids;
}

std::vector<ItemPointerData> StuckRows::InPages(int64 begin, int64 end) const {
  std::vector<ItemPointerData> tids;
  for (const RowVersion &row : left_out_)
    if (PageOf(row.tid) >= begin && PageOf(row.tid) < end) tids.push_back(row.tid);
  return tids;
}

std::vector<ItemPointerData> StuckRows::TakeDue(size_t most) {
  size_t const rest = due_.size() - std::min(most, due_.size());
  std::vector<ItemPointerData> tids(due_.begin() + static_cast<long>(rest), due_.end());
  due_.resize(rest);
  return tids;
}

void StuckRows::Insert(const ItemPointerData &tid, TransactionId xmin, const std::string &key,
                       const pg::Problem &problem) {
  ++failed_;
  last_problem_ = (problem.sqlstate != 0 ? problem.SqlState() + ": " : "") + problem.message;
  ItemPointerData copy = tid;
  pg::AsExtensionOwner as_owner;
  auto rows = Spi::Execute(
      R"(INSERT INTO redis_migrate.stuck_row AS s (job_id, table_name, row_tid, row_xmin, row_key, sqlstate, message,
           first_try, last_try, next_try)
         SELECT $1, $2, $3, $4, nullif($5, ''), $6, left($7, 1000), now, now, now + interval '1 hour'
         FROM clock_timestamp() AS now
         WHERE $8 OR EXISTS (SELECT FROM redis_migrate.stuck_row WHERE job_id = $1 AND table_name = $2 AND row_tid = $3)
         ON CONFLICT (job_id, table_name, row_tid) DO UPDATE SET
           row_xmin = excluded.row_xmin, row_key = excluded.row_key, sqlstate = excluded.sqlstate,
           message = excluded.message, last_try = excluded.last_try,
           tries = CASE WHEN s.row_xmin = excluded.row_xmin THEN s.tries ELSE 0 END + 1,
           first_try = CASE WHEN s.row_xmin = excluded.row_xmin THEN s.first_try ELSE excluded.last_try END,
           next_try = excluded.last_try + least(interval '1 day', interval '1 hour' *
             2 ^ CASE WHEN s.row_xmin = excluded.row_xmin THEN least(s.tries, 10) ELSE 0 END)
         RETURNING tries)",
      {SqlParam::Int8(job_id_),
       SqlParam::Text(table_),
       {TIDOID, PointerGetDatum(&copy), false},
       {XIDOID, TransactionIdGetDatum(xmin), false},
       SqlParam::Text(key),
       SqlParam::Text(problem.SqlState()),
       SqlParam::Text(problem.message),
       SqlParam::Bool(size_ < kMost)});
  bool const known = rows.size() > 0 && rows[0].Int4(0) > 1;
  if (!known) ++unknown_;
  if (rows.size() > 0 && !known) ++size_;
}

void StuckRows::Keep(const RowVersion &row, const pg::Problem &problem, Oid where,
                     const Statements &statements) {
  if (!key_columns_) {
    pg::AsExtensionOwner as_owner;
    key_columns_ = PrimaryKey(where);
  }
  std::string key;
  if (!key_columns_->empty()) {
    ItemPointerData tid = row.tid;
    auto rows = Spi::Execute(statements.Describe(*key_columns_), {{TIDOID, PointerGetDatum(&tid), false}});
    if (rows.size() > 0) key = rows[0].Text(0);
  }
  Insert(row.tid, row.xmin, key, problem);
  PassOver(row);
}

void StuckRows::KeepTable(const pg::Problem &problem) {
  may_drop_table_ = false;
  Insert(TableTid(), FrozenTransactionId, "", problem);
}

void StuckRows::ForgetTable() {
  pg::AsExtensionOwner as_owner;
  size_ -= static_cast<int64>(
      Spi::Execute("DELETE FROM redis_migrate.stuck_row WHERE job_id = $1 AND table_name = $2",
                   {SqlParam::Int8(job_id_), SqlParam::Text(table_)})
          .processed());
}

void StuckRows::Forget(const std::vector<ItemPointerData> &tids) {
  if (tids.empty()) return;
  pg::AsExtensionOwner as_owner;
  size_ -= static_cast<int64>(
      Spi::Execute(
          "DELETE FROM redis_migrate.stuck_row WHERE job_id = $1 AND table_name = $2 AND row_tid = ANY ($3)",
          {SqlParam::Int8(job_id_), SqlParam::Text(table_), SqlParam::TidArray(tids)})
          .processed());
}

}  // namespace prm::expiry
