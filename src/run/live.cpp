// CALL redis_migrate.follow(…): a live run, which loads a snapshot and then follows the stream. Each full
// sync is a run of its own, with the keys it met and the rows that it removed.
#include "connect/snapshot_file.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/wait.h"
#include "run/follower.h"
#include "source/seed.h"

namespace prm {
namespace {

using pg::Spi;

constexpr long kLookForSnapshotMs = 50;

// The point of the snapshot, once it is there.
redis::ReplicationPoint WaitForSnapshot(const LiveRecord &record, LinkWatch &link) {
  SpoolFiles spool(record.run_id());
  for (;;) {
    source::SpoolChunk chunk;
    auto const reader = pg::ValueOrThrow(source::StreamSpoolReader::Open(spool, std::nullopt));
    if (reader != nullptr && pg::ValueOrThrow(reader->Next(chunk))) {
      if (chunk.kind != source::SpoolChunk::Kind::kFullSync)
        throw FullSyncNeeded{"the snapshot that was being loaded is gone"};
      return {chunk.content, chunk.offset};
    }
    link.Look();
    pg::Sleep(kLookForSnapshotMs);
  }
}

void LoadSnapshot(Run &run, const LiveRecord &record, LinkWatch &link) {
  std::optional<LivePosition> const begun = record.ReadPosition();
  Spi::Commit();
  if (begun && begun->is_loaded) return;
  redis::ReplicationPoint const point = WaitForSnapshot(record, link);
  if (begun && !(begun->point == point)) throw FullSyncNeeded{"the snapshot that was being loaded is gone"};
  if (!begun) {
    LivePosition position;
    position.point = point;
    // After a snapshot that the server sent, the stream selects a database first.
    auto const snapshot = SnapshotFile::Open(record.run_id());
    if (snapshot != nullptr)
      if (auto const seed = source::ReadSeed(*snapshot); seed.ok()) position.db = seed.value().db;
    position.received_at_ms = pg::UnixMs(GetCurrentTimestamp());
    record.Begin(position);
    Spi::Commit();
  }
  run.Load([&] { link.Look(); });
  run.record().BeginLevel(run.routing().levels());
  run.record().ForgetSeen();
  record.SetLoaded(run.migration().name);
  Spi::Commit();
  SnapshotFile::Remove(record.run_id());
  pg::Report(LOG,
             "migration \"" + run.migration().name + "\" has loaded its snapshot and follows the stream");
}

// A change of a key must be able to take away what the key had.
void RequireDeletable(const Migration &migration) {
  for (const Mapping &mapping : migration.mappings)
    if (mapping.ledger == "none" && mapping.on_delete != "keep")
      throw pg::Failure(
          ERRCODE_FEATURE_NOT_SUPPORTED,
          "mapping \"" + mapping.name + "\" cannot be followed: nothing tells which rows a key has",
          "Its ledger is none: " + mapping.ledger_reason + ".",
          "SELECT redis_migrate.alter_mapping(" + pg::QuoteLiteral(migration.name) + ", " +
              pg::QuoteLiteral(mapping.name) + ", exclusive => false).");
}

// Returns when a full sync is needed: there is to be another run.
void FollowOnce(const std::string &name, const RunParameters &parameters) {
  Run run(name, parameters);
  RequireDeletable(run.migration());
  LiveRecord const record(run.record().id());
  LinkWatch link(record);
  try {
    LoadSnapshot(run, record, link);
    Follower(run, record, link).Follow();
  } catch (const FullSyncNeeded &needed) {
    pg::Report(WARNING, "migration \"" + name + "\" takes a new snapshot: " + needed.why);
    link.Stop();
    run.record().Finish("superseded", std::nullopt, "a new snapshot is needed: " + needed.why);
    Spi::Commit();
  } catch (...) {
    run.Fail("failed", pg::CurrentProblem());
    throw;
  }
}

}  // namespace
}  // namespace prm

// redis_migrate.follow(migration text, force boolean): see the SQL comment. Ends only with an error: that of
// a stop, 2D000 in a transaction block, 55000 in a session, or when a snapshot would remove too many rows,
// 55006, 42501 not the owner, those of the link, of the mappings and of Follower.
PRM_FUNCTION(follow) {
  using namespace prm;
  pg::RequireNonAtomic(fcinfo, "redis_migrate.follow commits after each batch");
  std::string const name = pg::TextArgument(fcinfo, 0, "migration");
  if (MyBgworkerEntry == nullptr)
    throw pg::Failure(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                      "redis_migrate.follow is for background workers", "",
                      "SELECT redis_migrate.start(" + pg::QuoteLiteral(name) + ", live => true).");
  RunParameters parameters;
  parameters.source = "replication";
  parameters.prune = true;
  parameters.live = true;
  parameters.force = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  pg::Spi spi(true);
  LoadMigration(name);  // before its lock: only the owner may take it
  for (;; parameters.force = false) FollowOnce(name, parameters);
}
