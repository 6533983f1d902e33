// Snapshots of servers on the database server's disk, in the directory of the database: they go with it.
#pragma once

#include "connect/file_spool.h"
#include "pg/pg.h"

namespace prm {

// One snapshot, named by the run that reads it, and of a cluster by the link (otherwise 0). Errors of all
// functions: those of pg::VirtualFile.
class SnapshotFile : public FileSpool<ByteSpool> {
 public:
  // The snapshot that was kept for a run; nullptr if there is none.
  static std::unique_ptr<SnapshotFile> Open(int64 run_id, int link = 0);
  // The links of a run that snapshots are kept for, ascending.
  static std::vector<int> LinksOf(int64 run_id);
  // Begins a new one. It goes with the object unless it is kept.
  static std::unique_ptr<SnapshotFile> Create();
  ~SnapshotFile() override;

  // Makes it durable as that of a run, also across a crash, in place of an earlier one.
  void KeepFor(int64 run_id, int link = 0);

  // The run that a file of this name was kept for; nothing: it is none of a snapshot.
  static std::optional<int64> RunOf(const std::string &name);
  // Whether a file of this name is one that a process had begun that is gone.
  static bool IsLeftOver(const std::string &name);
  // Removes the snapshots that were kept for a run.
  static void Remove(int64 run_id);

 private:
  SnapshotFile(const std::string &path, int flags) : FileSpool(path, flags) {}

  bool is_kept_ = true;
};

}  // namespace prm
