#include "source/scan_position.h"

#include <algorithm>
#include <charconv>

#include "core/printable.h"
#include "source/position_field.h"

namespace prm::source {

namespace {

constexpr size_t kMaxCursorDigits = 39;  // 128 bits
constexpr size_t kRunIdDigits = 40;

}  // namespace

bool IsRunId(Bytes text) {
  return text.size() == kRunIdDigits && text.find_first_not_of("0123456789abcdef") == Bytes::npos;
}

bool IsCursor(Bytes text) {
  return !text.empty() && text.size() <= kMaxCursorDigits &&
         text.find_first_not_of("0123456789") == Bytes::npos;
}

std::string ScanPosition::ToString() const {
  return "run_id=" + (run_id.empty() ? "-" : run_id) + " db=" + std::to_string(db) +
         " cursor=" + (db_done ? "end" : cursor);
}

Result<ScanPosition> ScanPosition::Parse(Bytes text) {
  Bytes rest = text;
  Bytes run_id;
  Bytes db;
  Bytes cursor;
  ScanPosition position;
  bool valid = TakeField(rest, "run_id=", run_id) && TakeField(rest, " db=", db) &&
               TakeField(rest, " cursor=", cursor) && rest.empty();
  if (valid) {
    const auto [end, error] = std::from_chars(db.data(), db.data() + db.size(), position.db);
    position.db_done = cursor == "end";
    valid = error == std::errc() && end == db.data() + db.size() && position.db >= 0 &&
            (run_id == "-" || IsRunId(run_id)) && (position.db_done || IsCursor(cursor));
  }
  if (!valid) {
    return Error{ErrorCode::kInvalidArgument, "invalid scan position \"" + Printable(text) + "\"", {}, {}};
  }
  if (run_id != "-") position.run_id = run_id;
  if (!position.db_done) position.cursor = cursor;
  return position;
}

}  // namespace prm::source
