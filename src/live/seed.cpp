#include "live/seed.h"

#include "connect/server.h"
#include "connect/server_file.h"
#include "connect/snapshot_file.h"
#include "pg/error.h"
#include "pg/settings.h"
#include "pg/spi.h"

namespace prm {

namespace {

// The SQLSTATE is not that of an invalid argument, because the file may become usable. The owner sees only
// the message of a worker's error.
template <typename StatusOrResult>
void RequireUsable(const StatusOrResult &outcome) {
  if (outcome.ok()) return;
  const Error &error = outcome.error();
  if (error.code != ErrorCode::kInvalidArgument) throw pg::Failure(error);
  throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    error.message + ": " + error.detail + " " + error.hint);
}

}  // namespace

void RequireContinues(redis::Connection &connection, const stream::Seed &seed) {
  auto const info = redis::FetchInfo(connection);
  pg::ThrowIfError(info);
  RequireUsable(stream::CheckContinues(info.value(), seed, connection.address()));
}

stream::Seed TakeSeed(const std::string &path, const std::string &server, int64 run_id) {
  ServerFile file(path, GetUserId());
  auto const seed = stream::ReadSeed(file);
  RequireUsable(seed);
  {
    ServerConnection connection(server, GetUserId());
    pg::Spi::Commit();
    RequireContinues(*connection, seed.value());
  }
  auto const snapshot = SnapshotFile::Create();
  int64 const most_mb = pg::settings::max_snapshot_size_mb;
  Status const copied = stream::CopyDump(
      file, *snapshot, most_mb < 0 ? std::numeric_limits<int64>::max() : static_cast<uint64>(most_mb) << 20);
  if (!copied.ok() && copied.error().code == ErrorCode::kTooLarge)
    throw pg::Failure(ERRCODE_PROGRAM_LIMIT_EXCEEDED, copied.error().message, copied.error().detail,
                      "Raise pg_redis_migrate.max_snapshot_size.");
  pg::ThrowIfError(copied);
  snapshot->KeepFor(run_id);
  return seed.value();
}

}  // namespace prm
