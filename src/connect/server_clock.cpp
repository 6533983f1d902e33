#include "connect/server_clock.h"

#include "pg/error.h"
#include "pg/time.h"
#include "source/key_reply.h"

namespace prm {

int64 FetchClockAhead(redis::Connection &connection) {
  int64 const asked_ms = pg::NowMs();
  auto const reply = connection.Command({"TIME"});
  if (!reply.ok() && source::IsMissingCommand(reply.error())) return 0;
  int64 const answered_ms = pg::NowMs();
  pg::ThrowIfError(reply);
  int64 const told_ms = pg::ValueOrThrow(source::ParseTime(connection, reply.value()));
  // The answer was given at some time in between.
  return told_ms - (asked_ms + (answered_ms - asked_ms) / 2);
}

}  // namespace prm
