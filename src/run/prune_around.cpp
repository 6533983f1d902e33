#include "run/prune_around.h"

#include "core/halves.h"
#include "core/printable.h"
#include "ledger/ledger.h"
#include "ledger/packed_ledger.h"
#include "mapping/mapping_settings.h"
#include "pg/identity.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/transaction.h"

namespace prm {

using pg::Spi;
using pg::SqlParam;

namespace {

constexpr size_t kMostStuck = 1000;
constexpr size_t kNotedAtOnce = 5000;
// Each removes rows that others of the same mapping referred to.
constexpr int kMostRounds = 10;

// The rows that stay.
struct StayingRows {
  std::vector<GoneRow> rows;
  size_t stuck = 0;  // of them; the others were not tried
  bool are_referred_to = false;
  std::string first;  // of those that are stuck
  std::string why;
};

// "(id, day)=(x,xxxx-xx-xx)": keys can be secrets.
std::string NameOf(const Target &target, const std::string &row_key) {
  std::string columns;
  for (const KeyColumn &key : target.keys) columns += (columns.empty() ? "" : ", ") + key.column.name;
  std::string masked = row_key.substr(1, row_key.size() - 2);  // without the braces
  for (char &c : masked)
    if (isalnum(static_cast<unsigned char>(c)) || IS_HIGHBIT_SET(c)) c = 'x';
  return "(" + columns + ")=(" + Printable(masked, 60) + ")";
}

// Removes rows and takes that back: the ledger and the journal need not know.
void TryToRemove(Ledger &ledger, const std::vector<GoneRow> &rows, const Halves &range) {
  pg::Context context("redis_migrate prune try");
  pg::SwitchContext in_context(context.get());
  std::vector<std::string> row_keys;
  for (size_t i = range.begin(); i < range.end(); ++i) row_keys.push_back(rows[i].row_key);
  pg::InRolledBackSubtransaction([&] {
    RowCounts counts;
    ledger.DeleteRows(row_keys, counts);
  });
}

StayingRows FindStaying(const Mapping &mapping, int64 run_id) {
  StayingRows staying;
  Target const target = LoadTarget(mapping);
  Ledger ledger(mapping, target, FindExpiryColumns(mapping, target));
  std::vector<GoneRow> rows = FindGoneRows(mapping, target, run_id);
  // If the search ends early, another one is to begin elsewhere.
  if (rows.size() > kMostStuck)
    std::rotate(rows.begin(), rows.begin() + pg::NowMs() % static_cast<int64>(rows.size()), rows.end());
  std::set<int> of_rows;
  Halves range(rows.size());
  while (!range.done() && staying.stuck < kMostStuck) {
    try {
      TryToRemove(ledger, rows, range);
      range.Next();
    } catch (const pg::PgError &error) {
      int const sqlstate = error.sqlstate();
      if (pg::FaultOf(sqlstate) == pg::Fault::kServer) throw;
      if (of_rows.count(sqlstate) == 0 && !IsFaultOfRows(mapping, error)) throw;
      of_rows.insert(sqlstate);
      if (range.Split()) continue;
      const GoneRow &row = rows[range.begin()];
      if (staying.stuck++ == 0) {
        staying.first = NameOf(target, row.row_key);
        staying.why = pg::SqlStateText(sqlstate) + ": " + error.what();
      }
      staying.are_referred_to = staying.are_referred_to || sqlstate == ERRCODE_FOREIGN_KEY_VIOLATION;
      staying.rows.push_back(row);
      range.Next();
    }
  }
  if (!range.done())
    staying.rows.insert(staying.rows.end(), rows.begin() + static_cast<long>(range.begin()), rows.end());
  return staying;
}

void NotePartAsMet(const Mapping &mapping, int64 run_id, const std::vector<GoneRow> &rows, size_t begin,
                   size_t end, bool met) {
  if (mapping.ledger == "packed") {
    std::vector<PackedItem> items;
    for (size_t i = begin; i < end; ++i) items.push_back(rows[i].item);
    if (met)
      PackedLedger::NoteSeen(mapping.id, run_id, std::move(items));
    else
      PackedLedger::ForgetSeen(mapping.id, run_id, std::move(items));
    return;
  }
  std::vector<std::string> row_keys;
  for (size_t i = begin; i < end; ++i) row_keys.push_back(rows[i].row_key);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(met ? R"sql(INSERT INTO redis_migrate.seen_row (run_id, mapping_id, row_key, lost)
                           SELECT $1, $2, row_key, false FROM unnest($3) AS row_key)sql"
                   : R"sql(DELETE FROM redis_migrate.seen_row
                           WHERE run_id = $1 AND mapping_id = $2 AND row_key = ANY ($3))sql",
               {SqlParam::Int8(run_id), SqlParam::Int8(mapping.id), SqlParam::TextArray(row_keys)});
}

// Records rows as met by the run, or takes that back.
void NoteAsMet(const Mapping &mapping, int64 run_id, const std::vector<GoneRow> &rows, bool met) {
  for (size_t begin = 0; begin < rows.size(); begin += kNotedAtOnce)
    NotePartAsMet(mapping, run_id, rows, begin, std::min(begin + kNotedAtOnce, rows.size()), met);
}

std::string Describe(const StayingRows &staying) {
  if (staying.stuck == 0) return "";
  std::string const count = std::to_string(staying.stuck);
  std::string const some = staying.stuck == 1 ? "1 row cannot go: "
                           : staying.rows.size() > staying.stuck
                               ? count + " rows and maybe more cannot go, first "
                               : count + " rows cannot go, first ";
  return some + staying.first + " (" + staying.why + ")";
}

}  // namespace

PruneResult PruneAround(const Mapping &mapping, int64 run_id, bool force) {
  pg::Context context("redis_migrate prune around");
  pg::SwitchContext in_context(context.get());
  PruneResult result;
  for (int round = 1; round <= kMostRounds; ++round) {
    StayingRows staying;
    {
      MappingSettings settings(mapping);
      staying = FindStaying(mapping, run_id);
    }
    NoteAsMet(mapping, run_id, staying.rows, true);
    PruneResult const pruned = Prune(mapping, run_id, force || round > 1);
    NoteAsMet(mapping, run_id, staying.rows, false);
    if (round == 1)
      result = pruned;
    else
      result.counts.Add(pruned.counts);
    result.stuck = Describe(staying);
    // Rows of the mapping may have referred to one another.
    if (!staying.are_referred_to || pruned.counts.deleted == 0) break;
  }
  return result;
}

}  // namespace prm
