// The spool of a live run's replication stream, as files in the directory of the database.
#pragma once

#include "connect/database_files.h"
#include "pg/pg.h"
#include "stream/stream_spool.h"

namespace prm {

// Errors of all functions are thrown: those of pg::VirtualFile.
class SpoolFiles : public stream::SpoolSegments {
 public:
  // link: of a cluster the number of the link, from 1 on; otherwise 0.
  explicit SpoolFiles(int64 run_id, int link = 0) : prefix_(LinkName(run_id, link) + "-") {}

  Result<std::vector<uint64_t>> List() override;
  Result<std::unique_ptr<stream::SpoolSegment>> Create(uint64_t number) override;
  Result<std::unique_ptr<stream::SpoolSegment>> Open(uint64_t number) override;
  Status Remove(uint64_t number) override;

  // The run that a file of this name belongs to; nothing: it is none of a spool.
  static std::optional<int64> RunOf(const std::string &name);

 private:
  std::string NameOf(uint64_t number) const;

  std::string prefix_;
};

}  // namespace prm
