#include "connect/database_files.h"

#include <unistd.h>

#include "connect/snapshot_file.h"
#include "connect/spool_files.h"

namespace prm {

std::string FilesDirectory() {
  char *path = pg::Call([] { return GetDatabasePath(MyDatabaseId, MyDatabaseTableSpace); });
  std::string directory = std::string(path) + "/pg_redis_migrate";
  pg::Call([&] { pfree(path); });  // a link asks all the time, in a memory context that lives as long as it
  return directory;
}

std::string MakeFilesDirectory() {
  std::string directory = FilesDirectory();
  if (MakePGDirectory(directory.c_str()) != 0 && errno != EEXIST)
    pg::ThrowFileError("create", directory, errno);
  return directory;
}

std::vector<std::string> FileNames() {
  std::string const directory = FilesDirectory();
  std::vector<std::string> names;
  DIR *const opened = pg::Call([&] { return AllocateDir(directory.c_str()); });
  if (opened == nullptr) return names;
  while (dirent *const entry = pg::Call([&] { return ReadDirExtended(opened, directory.c_str(), LOG); }))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  pg::Call([&] { FreeDir(opened); });
  return names;
}

void RemoveFile(const std::string &name) {
  std::string const path = FilesDirectory() + "/" + name;
  if (unlink(path.c_str()) == 0 || errno == ENOENT) return;
  pg::Call([&] {
    ereport(LOG, (errcode_for_file_access(), errmsg("could not remove file \"%s\": %m", path.c_str())));
  });
}

std::optional<int64> NumberIn(const std::string &name, const std::string &ending) {
  if (name.size() <= ending.size() || name.compare(name.size() - ending.size(), ending.size(), ending) != 0)
    return std::nullopt;
  std::string const digits = name.substr(0, name.size() - ending.size());
  if (digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::stoll(digits);
}

std::string LinkName(int64 run_id, int link) {
  return std::to_string(run_id) + (link == 0 ? std::string() : "." + std::to_string(link));
}

std::optional<int64> RunIn(const std::string &name) {
  size_t const dot = name.find('.');
  if (dot != std::string::npos && !NumberIn(name.substr(dot + 1), "")) return std::nullopt;
  return NumberIn(name.substr(0, dot), "");
}

void RemoveFilesOfOtherRuns(const std::set<int64> &run_ids) {
  for (const std::string &name : FileNames()) {
    std::optional<int64> run_id = SnapshotFile::RunOf(name);
    if (!run_id) run_id = SpoolFiles::RunOf(name);
    if (run_id ? run_ids.count(*run_id) == 0 : SnapshotFile::IsLeftOver(name)) RemoveFile(name);
  }
}

}  // namespace prm
