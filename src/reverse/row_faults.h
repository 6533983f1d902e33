// Rows that a reverse query cannot make values of.
#pragma once

#include "pg/rollback.h"
#include "pg/transaction.h"
#include "reverse/reverse_mapping.h"

namespace prm {

// The reverse query is at fault, whatever the row.
struct QueryFault {
  pg::Problem problem;
};

// Calls use(names), which reads their rows and has done nothing if it fails, in a snapshot. If a row is at
// fault, rolls back, and goes on with each half of the names, until the row is alone: calls refuse(name,
// problem) for it. Errors: QueryFault, after a rollback; those of `use` that are the server's.
template <typename Use, typename Refuse>
void ForRowsInOrder(const std::set<RowName> &names, Use use, Refuse refuse) {
  std::optional<pg::Problem> problem;
  try {
    pg::SnapshotScope const snapshot;
    use(names);
    return;
  } catch (...) {
    problem = pg::CurrentProblem();
    if (pg::FaultOf(problem->sqlstate) == pg::Fault::kServer) throw;
  }
  pg::RollBackAfter(*problem);
  if (pg::FaultOf(problem->sqlstate) == pg::Fault::kUnclear) throw QueryFault{*problem};
  if (names.size() == 1) {
    refuse(*names.begin(), *problem);
    return;
  }
  auto const middle = std::next(names.begin(), static_cast<int64>(names.size() / 2));
  ForRowsInOrder(std::set<RowName>(names.begin(), middle), use, refuse);
  ForRowsInOrder(std::set<RowName>(middle, names.end()), use, refuse);
}

// Those of the names that have no rows, or whose value is_gone says is none. One whose rows are at fault has
// some. unknown: of those that the ledger, if it names the keys, does not have, whether they are among them.
// Errors: as above.
template <typename IsGone>
std::set<RowName> FindWithoutRows(const ReverseMapping &reverse, const std::set<RowName> &names,
                                  IsGone is_gone, bool unknown) {
  std::set<RowName> without;
  ForRowsInOrder(
      names,
      [&](const std::set<RowName> &part) {
        int64 bytes = 0;
        std::set<RowName> of_nobody;
        std::map<RowName, ReverseValue> const values = ReadReverseRows(reverse, part, bytes, &of_nobody);
        for (const RowName &name : part)
          if (of_nobody.count(name) > 0 && !unknown)
            continue;
          else if (auto const found = values.find(name); found == values.end() || is_gone(found->second))
            without.insert(name);
      },
      [](const RowName &, const pg::Problem &) {});
  return without;
}

}  // namespace prm
