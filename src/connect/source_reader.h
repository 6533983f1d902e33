// Opens a source, or a part of it, and opens it again when the connection was lost.
#pragma once

#include "connect/snapshot_file.h"
#include "connect/source_division.h"
#include "pg/meanwhile.h"
#include "source/cluster_scan.h"
#include "source/rdb_file.h"
#include "source/scan.h"

namespace prm {

class SourceReader {
 public:
  // part: nothing for the whole source. first: what cannot be reached now is an error, rather than waited for
  // as in Next; not so for a part, since whoever divided the source has reached it. Errors: those of
  // ServerConnection and of the source; 55000 and 57P03 when the part is not one of the source any more.
  SourceReader(SourcePlace place, source::KeyFilter &filter, const std::string &position, bool first,
               const std::optional<SourcePart> &part = {});

  // Reads the next batch; false at the end. Until it is called again, or the reader ends, pg::Proceed lets
  // the source proceed. If the connection is lost, tries for pg_redis_migrate.reconnect_timeout to reconnect,
  // and continues after `position`, the last one that was committed. Errors: those of the source.
  bool Next(source::Batch &batch, const std::string &position);

  // Whether the source began again because its position was no longer valid; true once.
  bool TakeRestarted() { return std::exchange(restarted_, false); }
  // The number of keys in the databases that are read, as the server reports it; -1 if it does not.
  int64 estimate() const { return estimate_; }
  // The run_id of the server; empty: it does not say, or is a cluster.
  const std::string &run_id() const { return run_id_; }
  // Whether it has reconnected: the filter may have seen names twice.
  bool was_cut() const { return was_cut_; }
  // How many keys Redis has evicted since the source was opened; nothing if it does not say, or is a cluster.
  // Waits for Redis.
  std::optional<int64> Evicted();
  // Slots of a cluster that were read more than once.
  uint64 repeated_slots() const {
    return repeated_slots_ + (cluster_scan_ != nullptr ? cluster_scan_->repeated_slots() : 0);
  }

 private:
  bool Read(source::Batch &batch, const std::string &position);
  void Open(const std::string &position);
  void OpenServer(const std::string &position);
  void OpenCluster(const redis::Deployment &deployment, const std::string &position);
  void Close();
  void OpenRdbFile(const std::string &position);
  void OpenSnapshot(const std::string &position);
  void TakeSnapshot();
  bool OpenNextSnapshot();
  void OpenFile(ByteSource &file, const std::string &position);
  void ReportNotes() const;
  void ReportVersion(unsigned version);
  pg::Failure InFile(const Error &error) const;

  SourcePlace place_;
  bool first_;
  std::optional<SourcePart> part_;
  source::KeyFilter &filter_;
  std::unique_ptr<ServerConnection> connection_;
  std::optional<pg::ExternalDescriptor> names_descriptor_;  // of the scan's connection for names
  std::optional<ClusterResources> cluster_;
  std::unique_ptr<ServerFile> file_;
  std::unique_ptr<SnapshotFile> snapshot_;
  int link_ = 0;  // whose snapshot that is
  std::unique_ptr<source::Source> source_;
  source::ClusterScan *cluster_scan_ = nullptr;  // source_, if it is one
  uint64 repeated_slots_ = 0;                    // by those before it
  bool restarted_ = false;
  bool was_cut_ = false;
  bool version_reported_ = false;
  int64 estimate_ = -1;
  std::string run_id_;  // of the server when evicted_before_ was asked
  std::optional<int64> evicted_before_;
  std::optional<pg::Meanwhile> meanwhile_;  // ends before source_ does
};

}  // namespace prm
