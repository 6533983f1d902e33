// When a row has expired, as SQL: the statements of a sweep.
#pragma once

#include "expiry/policy.h"
#include "pg/spi.h"

namespace prm::expiry {

// The value of the expiry column below which a row has expired at `now`, and its place in statements.
class Cutoff {
 public:
  // Uses the settings of the session: PolicySettings must be in force, as intervals of days depend on the
  // time zone.
  Cutoff(const Policy &policy, ColumnKind kind, TimestampTz now);
  pg::SqlParam param() const { return {type_, Int64GetDatum(value_), false}; }
  pg::SqlParam ParamOf(int64 value) const { return {type_, Int64GetDatum(value), false}; }

 private:
  Oid type_;
  int64 value_;
};

// When a row with this value of its column expires, for reports. Lifetime and grace are included.
TimestampTz ExpiresAt(const Policy &policy, ColumnKind kind, int64 value);

// The texts of a policy's statements for one table. $1 is the cutoff, except for Range.
class Statements {
 public:
  Statements(const Policy &policy, ColumnKind kind, std::string table);
  // The same for the rows whose time has come, whatever the condition says.
  Statements ByTime() const;
  bool has_condition() const { return !condition_.empty(); }

  // In the order of the expiry index: $2 lowest value, $3 number of rows. One row: how many were locked, the
  // highest value among them, and the columns of Removed. `but_some` leaves out the rows whose tids are $4.
  std::string IndexBatch(bool but_some) const;
  // Within pages: $2 and $3 are the first tid and the one after the last. `skip_locked` leaves out rows that
  // others have locked; without it the statement waits for them, and costs half. With returns(): one row with
  // the columns of Removed. `but_some` as above.
  std::string PageBatch(bool skip_locked, bool but_some) const;
  // Locks rows and returns (tid, xmin, value) of each, without those that others have locked: in the order
  // of the expiry index and within pages, with the parameters of a batch, $4 always being there, and in pages
  // $5 the number of rows; and those whose tids are $2.
  std::string LockInOrder() const;
  std::string LockInPages() const;
  std::string LockNamed() const;
  // As these, without locks, and whatever others have locked.
  std::string FindInOrder() const;
  std::string FindInPages() const;
  // Removes the rows whose tids are $2. With returns(): one row with the columns of Removed.
  std::string RemoveNamed() const;
  // (tid, xmin, value) of expired rows whose tids are $2, without locks.
  std::string FindNamed() const;
  // The values of columns, all quoted as identifiers, in the row whose tid is $1: "(a, b)=(1, x)", at most
  // 200 characters.
  std::string Describe(const std::vector<std::string> &columns) const;
  // Whether removed rows are looked at again: what became of a soft delete, or the keys of a notification.
  bool returns() const { return returns_; }
  // The lowest value that has expired, or no row. `but_some`: the rows whose tids are $2 have expired,
  // whatever the condition says.
  std::string Oldest(bool but_some) const;
  // (all, expired) in a sample of $2 percent of the pages; the same in the whole table without $2.
  std::string Sample() const;
  std::string Count() const;
  // The number of rows that have expired within pages, $2 and $3 as above.
  std::string CountInPages() const;
  // (lowest value, highest value, values) of an integer column in a sample; $1 is the percentage of the
  // pages.
  std::string Range() const;
  // The rows that have not expired, whatever the condition says; for EXPLAIN.
  std::string Unexpired() const;

 private:
  // `guard`, "CASE WHEN ... THEN ... ELSE ", decides for some rows without the condition.
  std::string Expired(const std::string &guard = "") const;
  // The condition again, giving way to others while rows are looked at. `guard` as above.
  std::string ToSweep(const std::string &guard) const;
  std::string Remove(const std::string &where, const std::string &guard) const;
  std::string Lock(const std::string &where, const std::string &order, const std::string &guard) const;
  std::string Find(const std::string &where, const std::string &order, const std::string &guard) const;

  const Policy &policy_;
  std::string condition_;
  std::string type_;
  std::string table_;
  std::string column_;
  bool returns_;
};

// As the owner of a policy, under its settings: what its condition and its soft_delete use, if the owner is a
// superuser. Needs SPI. Errors: those of their analysis.
pg::UsedObjects UsedByTexts(const Policy &policy, ColumnKind kind);
// Errors: 55000 (UnconfirmedRelation) for code of roles that the owner has to confirm; those of the analysis.
void CheckCode(const Policy &policy, ColumnKind kind);

// The SQLSTATE with which the condition fails for some rows, or without any; 0: it does not. Needs SPI.
// Errors: those of the server.
int FailureOfCondition(const std::vector<ItemPointerData> &tids, const Statements &statements,
                       const Cutoff &cutoff);

// How many expired rows statements have met since the last call, whether or not they could lock them.
int64 TakeExpiredRowsMet();

}  // namespace prm::expiry
