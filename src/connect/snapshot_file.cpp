#include "connect/snapshot_file.h"

#include <sys/stat.h>
#include <unistd.h>

namespace prm {

namespace {

constexpr char kKept[] = ".rdb";
constexpr char kUnfinished[] = ".part";  // its name is the process that writes it

std::string Directory() {
  char *path = pg::Call([] { return GetDatabasePath(MyDatabaseId, MyDatabaseTableSpace); });
  return std::string(path) + "/pg_redis_migrate";
}

std::string PathOf(int64 number, const char *ending) {
  return Directory() + "/" + std::to_string(number) + ending;
}

// Errors are logged: what is left over does no harm but take room.
void Unlink(const std::string &path) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return;
  pg::Call([&] {
    ereport(LOG, (errcode_for_file_access(), errmsg("could not remove file \"%s\": %m", path.c_str())));
  });
}

// The number that a name consists of but for its ending; nothing if it is none.
std::optional<int64> NumberIn(const std::string &name, const std::string &ending) {
  if (name.size() <= ending.size() || name.compare(name.size() - ending.size(), ending.size(), ending) != 0)
    return std::nullopt;
  std::string const digits = name.substr(0, name.size() - ending.size());
  if (digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::stoll(digits);
}

std::vector<std::string> FileNames(const std::string &directory) {
  std::vector<std::string> names;
  DIR *const opened = pg::Call([&] { return AllocateDir(directory.c_str()); });
  if (opened == nullptr) return names;
  while (dirent *const entry = pg::Call([&] { return ReadDirExtended(opened, directory.c_str(), LOG); }))
    names.emplace_back(entry->d_name);
  pg::Call([&] { FreeDir(opened); });
  return names;
}

}  // namespace

std::unique_ptr<SnapshotFile> SnapshotFile::Open(int64 run_id) {
  std::string const path = PathOf(run_id, kKept);
  if (access(path.c_str(), F_OK) != 0) return nullptr;
  return std::unique_ptr<SnapshotFile>(new SnapshotFile(path, O_RDONLY));
}

std::unique_ptr<SnapshotFile> SnapshotFile::Create() {
  std::string const directory = Directory();
  if (MakePGDirectory(directory.c_str()) != 0 && errno != EEXIST)
    pg::ThrowFileError("create", directory, errno);
  std::unique_ptr<SnapshotFile> file(
      new SnapshotFile(PathOf(MyProcPid, kUnfinished), O_RDWR | O_CREAT | O_TRUNC));
  file->is_kept_ = false;
  return file;
}

SnapshotFile::~SnapshotFile() {
  if (!is_kept_) (void)unlink(file_.path().c_str());  // RemoveAllBut tries again
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

bool SnapshotFile::AnyExists() {
  std::vector<std::string> const names = FileNames(Directory());
  return std::any_of(names.begin(), names.end(), [](const std::string &name) {
    return NumberIn(name, kKept) || NumberIn(name, kUnfinished);
  });
}

void SnapshotFile::RemoveAllBut(const std::set<int64> &run_ids) {
  std::string const directory = Directory();
  for (const std::string &name : FileNames(directory)) {
    auto const run_id = NumberIn(name, kKept);
    auto const pid = NumberIn(name, kUnfinished);
    bool const is_orphan =
        run_id ? run_ids.count(*run_id) == 0
               : pid && pg::Call([&] { return BackendPidGetProc(static_cast<int>(*pid)); }) == nullptr;
    if (is_orphan) Unlink(directory + "/" + name);
  }
}

}  // namespace prm
