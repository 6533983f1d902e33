#include "connect/snapshot_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "connect/database_files.h"

namespace prm {

namespace {

constexpr char kKept[] = ".rdb";
constexpr char kUnfinished[] = ".part";  // its name is the process that writes it

std::string PathOf(int64 number, const char *ending) {
  return FilesDirectory() + "/" + std::to_string(number) + ending;
}

}  // namespace

std::unique_ptr<SnapshotFile> SnapshotFile::Open(int64 run_id) {
  std::string const path = PathOf(run_id, kKept);
  if (access(path.c_str(), F_OK) != 0) return nullptr;
  return std::unique_ptr<SnapshotFile>(new SnapshotFile(path, O_RDONLY));
}

std::unique_ptr<SnapshotFile> SnapshotFile::Create() {
  MakeFilesDirectory();
  std::unique_ptr<SnapshotFile> file(
      new SnapshotFile(PathOf(MyProcPid, kUnfinished), O_RDWR | O_CREAT | O_TRUNC));
  file->is_kept_ = false;
  return file;
}

SnapshotFile::~SnapshotFile() {
  if (!is_kept_) (void)unlink(file_.path().c_str());  // RemoveFilesOfOtherRuns tries again
}

void SnapshotFile::KeepFor(int64 run_id) {
  file_.Sync();
  std::string const path = PathOf(run_id, kKept);
  pg::Call([&] { return durable_rename(file_.path().c_str(), path.c_str(), ERROR); });
  is_kept_ = true;
}

Status SnapshotFile::Append(Bytes bytes) {
  file_.Write(size_, bytes);
  size_ += bytes.size();
  return {};
}

Status SnapshotFile::Truncate(uint64_t size) {
  file_.Truncate(size);
  size_ = size;
  return {};
}

Result<size_t> SnapshotFile::Read(uint64_t offset, char *to, size_t size) {
  return file_.Read(offset, to, size);
}

std::optional<int64> SnapshotFile::RunOf(const std::string &name) { return NumberIn(name, kKept); }

bool SnapshotFile::IsLeftOver(const std::string &name) {
  auto const pid = NumberIn(name, kUnfinished);
  return pid && pg::Call([&] { return BackendPidGetProc(static_cast<int>(*pid)); }) == nullptr;
}

void SnapshotFile::Remove(int64 run_id) { RemoveFile(std::to_string(run_id) + kKept); }

}  // namespace prm
