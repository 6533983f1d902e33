// The dump file that a live run begins with, in place of a snapshot that the server sends.
#pragma once

#include "pg/pg.h"
#include "stream/seed.h"

namespace prm {

// Checks that the stream of a server can be followed from the file on, copies it as the snapshot of the run,
// with the rights of the current user, and returns its place. Waits for the server: the caller has committed.
// Errors: those of ServerFile and ServerConnection; 55000 when the file or the server does not allow it;
// 54000 when it is larger than pg_redis_migrate.max_snapshot_size; XX001 when it is damaged.
stream::Seed TakeSeed(const std::string &path, const std::string &server, int64 run_id);

// Checks again that the server can go on from there. Errors: 55000, those of Connection.
void RequireContinues(redis::Connection &connection, const stream::Seed &seed);

}  // namespace prm
