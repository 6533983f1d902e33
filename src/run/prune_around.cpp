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
// In the search among rows that may refer to one another.
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

// In the order of the numbers in keys, as far as there are some: rows that refer to others of the mapping are
// often the later ones.
bool IsEarlier(const GoneRow &row, const GoneRow &other) {
  size_t const size = row.row_key.size(), other_size = other.row_key.size();
  return size != other_size ? size < other_size : row.row_key < other.row_key;
}

// Finds the rows that stay, by removing the others. That is rolled back: the ledger and the journal need not
// know.
class StayingRows {
 public:
  explicit StayingRows(const Mapping &mapping)
      : mapping_(mapping),
        target_(LoadTarget(mapping)),
        ledger_(mapping, target_, FindExpiryColumns(mapping, target_)) {}

  void Find(int64 run_id) {
    GoneRows gone;
    FindGoneRows(mapping_, target_, run_id, gone);
    pg::InRolledBackSubtransaction([&] {
      TryAll(gone);
      TryAgain();
    });
    for (const StuckRow &stuck : stuck_) rows_.Put(stuck.row);
  }

  // Those that cannot go, and those that were not tried.
  GoneRows &rows() { return rows_; }

  // How many cannot go, which is the first, and why; empty: none.
  std::string Describe() const {
    if (stuck_.empty()) return "";
    size_t const count = stuck_.size(), untried = rows_.size() - count;
    return (count == 1 ? "1 row cannot go: " : std::to_string(count) + " rows cannot go, first ") +
           NameOf(target_, stuck_.front().row.row_key) + " (" + stuck_.front().why + ")" +
           (untried == 0 ? "" : "; others were not tried: " + std::to_string(untried));
  }

 private:
  struct StuckRow {
    GoneRow row;
    std::string why;
  };

  // If the search ends early, another one is to begin elsewhere.
  void TryAll(GoneRows &gone) {
    size_t const portions = (gone.size() + kTriedAtOnce - 1) / kTriedAtOnce;
    auto const now = static_cast<size_t>(pg::NowMs());
    for (bool const are_first : {true, false}) {
      size_t number = 0;
      gone.ForEachPortion(kTriedAtOnce, [&](std::vector<GoneRow> &rows) {
        if ((number++ >= now % portions) != are_first) return;
        std::sort(rows.rbegin(), rows.rend(), IsEarlier);
        if (rows.size() > kMostStuck)
          std::rotate(rows.begin(), rows.begin() + static_cast<long>(now % rows.size()), rows.end());
        int tries_left = INT_MAX;
        for (size_t i = Try(rows, tries_left); i < rows.size(); ++i) rows_.Put(rows[i]);
      });
    }
  }

  // Rows of the mapping that have gone by now may have referred to those that are stuck.
  void TryAgain() {
    auto is_earlier = [](const StuckRow &stuck, const StuckRow &other) {
      return IsEarlier(stuck.row, other.row);
    };
    int tries_left = kMostTriesAgain;
    bool has_removed = true;
    for (bool latest_first = true; are_referred_to_ && has_removed && tries_left > 0;
         latest_first = !latest_first) {
      std::vector<StuckRow> before = std::exchange(stuck_, {});
      std::sort(before.begin(), before.end(), is_earlier);
      if (latest_first) std::reverse(before.begin(), before.end());
      std::vector<GoneRow> rows;
      for (const StuckRow &stuck : before) rows.push_back(stuck.row);
      are_referred_to_ = false;
      size_t const tried = Try(rows, tries_left);
      for (size_t i = tried; i < before.size(); ++i) stuck_.push_back(std::move(before[i]));
      has_removed = stuck_.size() < before.size();
    }
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
        if (!IsOfRows(error)) throw;
        if (range.Split()) continue;
        are_referred_to_ = are_referred_to_ || error.sqlstate() == ERRCODE_FOREIGN_KEY_VIOLATION;
        stuck_.push_back({rows[range.begin()], pg::SqlStateText(error.sqlstate()) + ": " + error.what()});
        range.Next();
        continue;
      }
      // Again, as many subtransactions that are kept would slow down snapshots.
      Remove(rows, range);
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

  bool IsOfRows(const pg::PgError &error) {
    int const sqlstate = error.sqlstate();
    if (pg::FaultOf(sqlstate) == pg::Fault::kServer) return false;
    if (of_rows_.count(sqlstate) == 0 && !IsFaultOfRows(mapping_, error)) return false;
    of_rows_.insert(sqlstate);
    return true;
  }

  const Mapping &mapping_;
  Target target_;
  Ledger ledger_;
  GoneRows rows_;
  std::vector<StuckRow> stuck_;
  bool are_referred_to_ = false;
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

}  // namespace

PruneResult PruneAround(const Mapping &mapping, int64 run_id, bool force) {
  pg::Context context("redis_migrate prune around");
  pg::SwitchContext in_context(context.get());
  std::optional<StayingRows> found;
  {
    MappingSettings settings(mapping);
    found.emplace(mapping).Find(run_id);
  }
  StayingRows &staying = *found;
  NoteAsMet(mapping, run_id, staying.rows(), true);
  PruneResult result = Prune(mapping, run_id, force);
  NoteAsMet(mapping, run_id, staying.rows(), false);
  result.stuck = staying.Describe();
  return result;
}

}  // namespace prm
