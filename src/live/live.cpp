// CALL redis_migrate.follow(…): a live run, which loads a snapshot and then follows the stream; or scans, and
// follows a feed that was opened before. Each full sync and each scan is a run of its own, with the keys it
// met and the rows that it removed.
#include "connect/snapshot_file.h"
#include "connect/spool_files.h"
#include "live/appliers.h"
#include "live/changed_rows.h"
#include "live/live_links.h"
#include "live/unapplied.h"
#include "mapping/followable.h"
#include "pg/arguments.h"
#include "pg/entry.h"
#include "pg/own_write.h"
#include "pg/spi.h"
#include "pg/time.h"
#include "pg/wait.h"
#include "run/run.h"
#include "source/scan_position.h"
#include "stream/seed.h"
#include "stream/stream_spool.h"

namespace prm {

void (*look_after_fences)(const Migration &migration) = nullptr;

namespace {

using pg::Spi;

constexpr long kLookForSnapshotMs = 50;
constexpr long kScanAgainMs = 1000;

// Thrown when somebody waits to change the migration: the run has to make way, and goes on afterwards.
struct ChangeAwaited {};

void MakeWay(const Run &run) {
  if (run.IsInTheWay()) throw ChangeAwaited();
}

// The point of the snapshot of a link, once it is there; or of the beginning of the feed.
redis::ReplicationPoint WaitForSnapshot(const LiveRecord &record, Links &links) {
  SpoolFiles spool(record.run_id(), record.link());
  for (;;) {
    stream::SpoolChunk chunk;
    auto const reader = pg::ValueOrThrow(stream::StreamSpoolReader::Open(spool, std::nullopt));
    if (reader != nullptr && pg::ValueOrThrow(reader->Next(chunk))) {
      if (chunk.kind != stream::SpoolChunk::Kind::kFullSync)
        throw FullSyncNeeded{"the snapshot that was being loaded is gone"};
      return {chunk.content, chunk.offset};
    }
    links.Look();
    pg::Sleep(kLookForSnapshotMs);
  }
}

// A feed belongs to one process of the server. The scan that stored the position may have reached another.
void RequireServer(const std::string &position, const std::string &run_id) {
  auto const reached = source::ScanPosition::Parse(position);
  if (reached.ok() && reached.value().run_id != run_id)
    throw FullSyncNeeded{"the scan has read another server than the one that tells the changes"};
}

// Returns false once all is loaded.
bool BeginLoading(const LiveRecord &record, Links &links) {
  std::optional<LivePosition> const begun = record.ReadLowest();
  Spi::Commit();
  if (begun && begun->is_loaded) return false;
  redis::ReplicationPoint const point = WaitForSnapshot(record, links);
  if (begun && !(begun->point == point)) throw FullSyncNeeded{"the snapshot that was being loaded is gone"};
  if (!begun) {
    LivePosition position;
    position.point = point;
    // After a snapshot that the server sent, the stream selects a database first.
    auto const snapshot = SnapshotFile::Open(record.run_id(), record.link());
    if (snapshot != nullptr)
      if (auto const seed = stream::ReadSeed(*snapshot); seed.ok()) position.db = seed.value().db;
    position.received_at_ms = pg::UnixMs(GetCurrentTimestamp());
    record.Begin(position);
    Spi::Commit();
  }
  return true;
}

// Returns false if it was loaded before.
bool LoadSnapshot(Run &run, Links &links) {
  const LiveRecord &record = links.records.front();
  for (const LiveRecord &of_link : links.records)
    if (!BeginLoading(of_link, links)) return false;
  bool const is_scan = run.source() == "scan";
  std::string const server = is_scan ? record.ReadLowest().value().point.id : std::string();
  Spi::Commit();
  run.Load([&] {
    links.Look();
    if (is_scan) RequireServer(run.record().position(), server);
  });
  run.record().BeginLevel(run.routing().levels());
  run.record().ForgetSeen();
  record.SetLoaded(run.migration().name);
  Spi::Commit();
  SnapshotFile::Remove(record.run_id());
  pg::Report(LOG, "migration \"" + run.migration().name +
                      (is_scan ? "\" has read all keys and follows their changes"
                               : "\" has loaded its snapshot and follows the stream"));
  return true;
}

// Applies the changes, with others that apply shares of them.
[[noreturn]] void FollowAsLeader(Run &run, bool is_resumed, Links &links) {
  std::string const &name = run.migration().name;
  links.SetShare({0, LiveRecord::ReadAppliers(name)});
  for (const LiveRecord &record : links.records) record.BeginShares(name);
  Spi::Commit();
  Appliers appliers(links.records.front());
  FollowedRun followed(run.migration(), run.routing(), run.source(), run.record());
  ChangedRows changed_rows(followed, is_resumed);
  Spi::Commit();
  links.watches.front()->set_beside([&] {
    MakeWay(run);
    appliers.Look();
    look_after_fences(run.migration());
    changed_rows.Look();
  });
  FollowLinks(followed, links);
}

// Ends a run after which another one loads all keys.
void GiveWay(Run &run, Links &links, const std::string &why) {
  std::string const &name = run.migration().name;
  bool const is_scan = run.source() == "scan";
  pg::Report(WARNING, "migration \"" + name + "\" " +
                          (is_scan ? "reads all keys again: " : "takes a new snapshot: ") + why);
  links.Stop();
  std::string reason = (is_scan ? "all keys have to be read again: " : "a new snapshot is needed: ") + why;
  std::string unknown;
  if (!is_scan)
    for (const LiveRecord &record : links.records)
      if (std::string const of_link = KeepUnappliedWrites(run.migration(), run.routing(), record);
          unknown.empty())
        unknown = of_link;
  if (!unknown.empty()) {
    reason += "; late writes that were received before are not known: " + unknown;
    pg::Report(WARNING, "late writes of migration \"" + name +
                            "\" that were received before are not known: " + unknown);
  }
  run.record().Finish("superseded", std::nullopt, reason);
  Spi::Commit();
}

// Returns when a full sync is needed, for which another run begins.
void FollowOnce(const std::string &name, RunParameters parameters) {
  parameters.is_flushed = LiveRecord::IsFlushed(name);
  Spi::Commit();  // the run is to see the migration as it is when whoever changes it has finished
  Run run(name, parameters);
  RequireFollowable(run.migration());
  Links links;
  // What comes after it may fail, too.
  std::optional<FullSyncNeeded> needed;
  try {
    // A feed is one server's; its worker refuses others.
    int64 const id = run.record().id();
    links.Open(run.source() == "scan" ? std::vector<LiveRecord>{LiveRecord(id)}
                                      : LinksOf(id, run.migration().server));
    links.watches.front()->set_beside([&] { MakeWay(run); });
    bool const is_loaded_now = LoadSnapshot(run, links);
    FollowAsLeader(run, !is_loaded_now, links);
  } catch (const FullSyncNeeded &thrown) {
    needed = thrown;
  } catch (const ChangeAwaited &) {
    throw;
  } catch (...) {
    run.Fail("failed", pg::CurrentProblem());
    throw;
  }
  try {
    GiveWay(run, links, needed.value().why);
  } catch (...) {
    run.Fail("failed", pg::CurrentProblem());
    throw;
  }
  // A feed that breaks at once must not make the server answer scans without a pause.
  if (parameters.source == "scan") pg::Sleep(kScanAgainMs);
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
  parameters.prune = true;
  parameters.live = true;
  parameters.force = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
  pg::Spi spi(true);
  parameters.source = LoadMigration(name).source;  // before its lock: only the owner may take it
  if (parameters.source == "scan") parameters.workers = 1;
  pg::OwnWrite const own_write;
  StopAppliersLeft(name);
  for (;; parameters.force = false) {
    try {
      FollowOnce(name, parameters);
    } catch (const ChangeAwaited &) {  // the links go on receiving
      parameters.waits = true;
    }
  }
}
