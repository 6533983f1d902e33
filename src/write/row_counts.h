// The outcomes of rows of a target.
#pragma once

#include "pg/pg.h"

namespace prm {

struct RowCounts {
  int64 inserted = 0;
  int64 updated = 0;
  int64 unchanged = 0;
  int64 folded = 0;
  int64 deleted = 0;
  int64 changed_here = 0;  // of those deleted: rows that somebody else has changed since they were stored
  // Where there is an on_expire, rows that left because their keys had expired, and those of which it is not
  // known; they were deleted, marked or kept.
  int64 expired = 0;
  int64 unclear = 0;
  int64 ledger_bytes = 0;  // that were read to find out whose rows they are, though a merge would spare it
  void Add(const RowCounts &other);
  bool HasStored() const { return inserted + updated + unchanged > 0; }
};

}  // namespace prm
