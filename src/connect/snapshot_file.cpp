#include "connect/snapshot_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "connect/database_files.h"

namespace prm {

namespace {

constexpr char kKept[] = ".rdb";
constexpr char kUnfinished[] = ".part";  // its name is the process that writes it

std::string PathOf(const std::string &name, const char *ending) {
  return FilesDirectory() + "/" + name + ending;
}

bool EndsWith(const std::string &name, const std::string &ending) {
  return name.size() > ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
}

}  // namespace

std::unique_ptr<SnapshotFile> SnapshotFile::Open(int64 run_id, int link) {
  std::string const path = PathOf(LinkName(run_id, link), kKept);
  if (access(path.c_str(), F_OK) != 0) return nullptr;
  return std::unique_ptr<SnapshotFile>(new SnapshotFile(path, O_RDONLY));
}

std::unique_ptr<SnapshotFile> SnapshotFile::Create() {
  MakeFilesDirectory();
  std::unique_ptr<SnapshotFile> file(
      new SnapshotFile(PathOf(std::to_string(MyProcPid), kUnfinished), O_RDWR | O_CREAT | O_TRUNC));
  file->is_kept_ = false;
  return file;
}

SnapshotFile::~SnapshotFile() {
  if (!is_kept_) (void)unlink(file_.path().c_str());  // RemoveFilesOfOtherRuns tries again
}

void SnapshotFile::KeepFor(int64 run_id, int link) {
  file_.Sync();
  std::string const path = PathOf(LinkName(run_id, link), kKept);
  pg::Call([&] { return durable_rename(file_.path().c_str(), path.c_str(), ERROR); });
  is_kept_ = true;
}

std::optional<int64> SnapshotFile::RunOf(const std::string &name) {
  if (!EndsWith(name, kKept)) return std::nullopt;
  return RunIn(name.substr(0, name.size() - std::string(kKept).size()));
}

std::vector<int> SnapshotFile::LinksOf(int64 run_id) {
  std::vector<int> links;
  for (const std::string &name : FileNames()) {
    if (name == LinkName(run_id, 0) + kKept) links.push_back(0);
    if (RunOf(name) != run_id) continue;
    size_t const dot = name.find('.') + 1;
    if (auto const link = NumberIn(name.substr(dot), kKept)) links.push_back(static_cast<int>(*link));
  }
  std::sort(links.begin(), links.end());
  return links;
}

bool SnapshotFile::IsLeftOver(const std::string &name) {
  auto const pid = NumberIn(name, kUnfinished);
  return pid && pg::Call([&] { return BackendPidGetProc(static_cast<int>(*pid)); }) == nullptr;
}

void SnapshotFile::Remove(int64 run_id) {
  for (int const link : LinksOf(run_id)) RemoveFile(LinkName(run_id, link) + kKept);
}

}  // namespace prm
