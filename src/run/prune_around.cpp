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
constexpr size_t kTriedAtOnce = 20000;
constexpr size_t kNotedAtOnce = 5000;
// Of rows that others of the mapping may have referred to.
constexpr int kMostTriesAgain = 20000;

// "(id, day)=(x,xxxx-xx-xx)": keys can be secrets.
std::string NameOf(const Target &target, const std::string &row_key) {
  std::string columns;
  for (const KeyColumn &key : target.keys) columns += (columns.empty() ? "" : ", ") + key.column.name;
  std::string masked = row_key.substr(1, row_key.size() - 2);  // without the braces
  for (char &c : masked)
    if (isalnum(static_cast<unsigned char>(c)) || IS_HIGHBIT_SET(c)) c = 'x';
  return "(" + columns + ")=(" + Printable(masked, 60) + ")";
}

// Whether rows of the mapping are at fault.
bool IsOfRows(const Mapping &mapping, const pg::PgError &error) {
  return pg::FaultOf(error.sqlstate()) != pg::Fault::kServer && IsFaultOfRows(mapping, error);
}

// Finds the rows that stay, by removing the others. That is rolled back: the ledger and the journal need not
// know.
class StayingRows {
 public:
  // in_turn: rows are tried when those that were tried before are gone; otherwise while all are there.
  StayingRows(const Mapping &mapping, bool in_turn)
      : mapping_(mapping),
        target_(LoadTarget(mapping)),
        ledger_(mapping, target_, FindExpiryColumns(mapping, target_)),
        in_turn_(in_turn) {}

  void Find(int64 run_id) {
    GoneRows gone, sorted;
    FindGoneRows(mapping_, target_, run_id, gone);
    // Rows that refer to others of the mapping are often the later ones. One statement often comes to the
    // earlier ones first.
    gone.SortInto(sorted, in_turn_);
    pg::InRolledBackSubtransaction([&] { Search(sorted); });
    for (const StuckRow &stuck : stuck_) rows_.Put(stuck.row);
  }

  // Those that cannot go, and those that were not tried.
  GoneRows &rows() { return rows_; }

  // How many cannot go, which is the first, and why; empty: all can.
  std::string Describe() const {
    size_t const count = stuck_.size(), untried = rows_.size() - count;
    if (count == 0) return untried == 0 ? "" : "rows were not tried: " + std::to_string(untried);
    return (count == 1 ? "1 row cannot go: " : std::to_string(count) + " rows cannot go, first ") +
           NameOf(target_, stuck_.front().row.row_key) + " (" + stuck_.front().why + ")" +
           (untried == 0 ? "" : "; others were not tried: " + std::to_string(untried));
  }

 private:
  struct StuckRow {
    GoneRow row;
    std::string why;
  };

  void Search(GoneRows &gone) {
    TryAll(gone, 0);
    if (removed_ == 0 && rows_.size() > 0) {  // others than the first may go
      stuck_.clear();
      rows_.Clear();
      TryAll(gone, static_cast<size_t>(pg::NowMs()) % gone.size());
    }
    GoneRows untried;
    while (TryAgain() && rows_.size() > 0) {
      untried.Clear();
      rows_.ForEachPortion(kTriedAtOnce, [&](const std::vector<GoneRow> &rows) {
        for (const GoneRow &row : rows) untried.Put(row);
      });
      rows_.Clear();
      TryAll(untried, 0);
    }
  }

  // In their order, beginning with the row of this number. Adds those that it does not try to rows_.
  void TryAll(GoneRows &gone, size_t start) {
    for (bool const are_before : {false, true}) {
      if (are_before && start == 0) break;
      size_t number = 0;
      gone.ForEachPortion(kTriedAtOnce, [&](const std::vector<GoneRow> &portion) {
        std::vector<GoneRow> rows;
        for (const GoneRow &row : portion)
          if ((number++ < start) == are_before) rows.push_back(row);
        int tries_left = INT_MAX;
        for (size_t i = Try(rows, tries_left); i < rows.size(); ++i) rows_.Put(rows[i]);
      });
    }
  }

  // Rows of the mapping that have gone by now may have referred to those that are stuck. Returns whether some
  // of these can go.
  bool TryAgain() {
    size_t const count = stuck_.size();
    bool has_removed = in_turn_ && removed_ > 0;
    for (bool in_order = true; are_referred_to_ && has_removed && tries_left_ > 0; in_order = !in_order) {
      std::vector<StuckRow> before = std::exchange(stuck_, {});
      if (!in_order) std::reverse(before.begin(), before.end());
      std::vector<GoneRow> rows;
      for (const StuckRow &stuck : before) rows.push_back(stuck.row);
      are_referred_to_ = false;
      size_t const tried = Try(rows, tries_left_);
      for (size_t i = tried; i < before.size(); ++i) stuck_.push_back(std::move(before[i]));
      has_removed = stuck_.size() < before.size();
    }
    return stuck_.size() < count;
  }

  // Removes those of the rows that can go, and adds the others to stuck_. Returns how many it has tried: it
  // ends with the last try, or if very many are stuck.
  size_t Try(const std::vector<GoneRow> &rows, int &tries_left) {
    Halves range(rows.size());
    while (!range.done() && stuck_.size() < kMostStuck && tries_left > 0) {
      --tries_left;
      try {
        pg::InRolledBackSubtransaction([&] { Remove(rows, range); });
      } catch (const pg::PgError &error) {
        int const sqlstate = error.sqlstate();
        if (of_rows_.count(sqlstate) == 0 && !IsOfRows(mapping_, error)) throw;
        of_rows_.insert(sqlstate);
        if (range.Split()) continue;
        are_referred_to_ = are_referred_to_ || pg::IsForeignKeyViolation(sqlstate);
        stuck_.push_back({rows[range.begin()], pg::SqlStateText(sqlstate) + ": " + error.what()});
        range.Next();
        continue;
      }
      // Again, as many subtransactions that are kept would slow down snapshots.
      if (in_turn_) Remove(rows, range);
      removed_ += range.end() - range.begin();
      range.Next();
    }
    return range.done() ? rows.size() : range.begin();
  }

  void Remove(const std::vector<GoneRow> &rows, const Halves &range) {
    pg::Context context("redis_migrate prune try");
    pg::SwitchContext in_context(context.get());
    RowCounts counts;
    auto hand_over = [&](const Ledger::TakeRowKey &take) {
      for (size_t i = range.begin(); i < range.end(); ++i) take(rows[i].row_key);
    };
    ledger_.DeleteRows(hand_over, counts);
  }

  const Mapping &mapping_;
  Target target_;
  Ledger ledger_;
  bool const in_turn_;
  GoneRows rows_;
  std::vector<StuckRow> stuck_;
  size_t removed_ = 0;
  bool are_referred_to_ = false;
  int tries_left_ = kMostTriesAgain;
  std::set<int> of_rows_;  // SQLSTATEs
};

void NotePortionAsMet(const Mapping &mapping, int64 run_id, const std::vector<GoneRow> &rows, bool met) {
  if (mapping.ledger == "packed") {
    std::vector<PackedItem> items;
    for (const GoneRow &row : rows) items.push_back(row.item);
    if (met)
      PackedLedger::NoteSeen(mapping.id, run_id, std::move(items));
    else
      PackedLedger::ForgetSeen(mapping.id, run_id, std::move(items));
    return;
  }
  std::vector<std::string> row_keys;
  for (const GoneRow &row : rows) row_keys.push_back(row.row_key);
  pg::AsExtensionOwner as_owner;
  Spi::Execute(met ? R"sql(INSERT INTO redis_migrate.seen_row (run_id, mapping_id, row_key, lost)
                           SELECT $1, $2, row_key, false FROM unnest($3) AS row_key)sql"
                   : R"sql(DELETE FROM redis_migrate.seen_row
                           WHERE run_id = $1 AND mapping_id = $2 AND row_key = ANY ($3))sql",
               {SqlParam::Int8(run_id), SqlParam::Int8(mapping.id), SqlParam::TextArray(row_keys)});
}

// Records rows as met by the run, or takes that back.
void NoteAsMet(const Mapping &mapping, int64 run_id, GoneRows &rows, bool met) {
  rows.ForEachPortion(kNotedAtOnce, [&](const std::vector<GoneRow> &portion) {
    NotePortionAsMet(mapping, run_id, portion, met);
  });
}

PruneResult PruneOthers(const Mapping &mapping, int64 run_id, bool force, bool in_turn) {
  std::optional<StayingRows> found;
  {
    MappingSettings settings(mapping);
    found.emplace(mapping, in_turn).Find(run_id);
  }
  StayingRows &staying = *found;
  NoteAsMet(mapping, run_id, staying.rows(), true);
  PruneResult result = Prune(mapping, run_id, force);
  NoteAsMet(mapping, run_id, staying.rows(), false);
  result.stuck = staying.Describe();
  return result;
}

}  // namespace

PruneResult PruneAround(const Mapping &mapping, int64 run_id, bool force) {
  pg::Context context("redis_migrate prune around");
  pg::SwitchContext in_context(context.get());
  PruneResult result;
  try {
    pg::InSubtransaction([&] { result = PruneOthers(mapping, run_id, force, true); });
  } catch (const pg::PgError &error) {
    if (!IsOfRows(mapping, error)) throw;
    // A trigger may let rows go in turn, and not in the order in which one statement removes them all.
    result = PruneOthers(mapping, run_id, force, false);
  }
  return result;
}

}  // namespace prm
