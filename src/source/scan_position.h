// The position of a scan, as text that can be stored.
#pragma once

#include <string>

#include "core/bytes.h"
#include "core/status.h"

namespace prm::source {

// A cursor is meaningful only to the server process that issued it.
struct ScanPosition {
  std::string run_id;        // of the server, 40 hex digits; empty: unknown
  int db = 0;                // the databases before it are done
  std::string cursor = "0";  // of the next SCAN; "0": from the start
  bool db_done = false;      // the database is done as well

  // "run_id=<hex or -> db=<n> cursor=<digits or end>".
  std::string ToString() const;

  // Parses such a text. Errors: kInvalidArgument unless it has the format of ToString.
  static Result<ScanPosition> Parse(Bytes text);
};

// Whether the text can be a cursor: decimal digits, at most as many as Redis and its relatives use.
bool IsCursor(Bytes text);

// Whether the text is a run_id as Redis makes them: 40 hex digits.
bool IsRunId(Bytes text);

}  // namespace prm::source
