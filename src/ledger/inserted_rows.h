// The rows that a run has inserted, as packed lists of hashes and images: those that a run notes, those of a
// packed ledger's batches, and what an undo has left of both.
#pragma once

#include "core/packed_items.h"
#include "mapping/catalog.h"
#include "pg/pg.h"

namespace prm {

// Needs SPI; works with the rights of the extension's owner in the current transaction. Errors: XX001 and
// 0A000 for lists that this version cannot read.
class InsertedRows {
 public:
  InsertedRows(const Mapping &mapping, int64 run_id) : mapping_(mapping), run_id_(run_id) {}

  // Notes rows that the run has inserted. columns: a fingerprint of those that images cover.
  void Note(int64 columns, std::vector<PackedItem> rows) const;

  // Whether there is nothing for Sort to do.
  bool IsSorted() const;

  // How many rows all lists name; one that was inserted twice may count twice.
  int64 Count() const;

  // For an undo: makes of all lists new ones, each of a range of hashes and of about a million rows at most,
  // in which each row stands once, as it was inserted last. Images of other columns than these are taken as
  // unknown. Returns how many mentions of rows went. The ledger's batches become those of no run.
  int64 Sort(int64 columns) const;

  // The numbers of the sorted lists.
  std::vector<int64> Lists() const;
  // The rows of a list in ascending order. Images of other columns than these are unknown.
  std::vector<PackedItem> Read(int64 list, int64 columns) const;
  // Puts the rows that are left in the place of a list. Returns the number of theirs.
  int64 Replace(int64 list, int64 columns, std::vector<PackedItem> left) const;

 private:
  int64 Save(int64 columns, bool sorted, std::vector<PackedItem> rows) const;

  const Mapping &mapping_;
  int64 run_id_;
};

// A run's rows in lists that nobody can undo, because the mapping is gone or has got another target or key.
struct StrandedRows {
  std::string mapping;  // "(target)" if it is gone
  std::string reason;
  int64 rows;
};
// Errors: as above.
std::vector<StrandedRows> FindStrandedRows(const std::string &migration, int64 run_id);

}  // namespace prm
