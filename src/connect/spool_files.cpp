#include "connect/spool_files.h"

#include <unistd.h>

#include "connect/file_spool.h"

namespace prm {

namespace {

constexpr char kEnding[] = ".spool";  // <run>-<number>.spool, <run>.<link>-<number>.spool

class SegmentFile : public FileSpool<stream::SpoolSegment> {
 public:
  SegmentFile(const std::string &path, int flags) : FileSpool(path, flags) {}

  Status Sync() override {
    file_.Sync();
    return {};
  }
};

// Makes the creation or removal of files durable.
void SyncDirectory() {
  std::string const directory = FilesDirectory();
  pg::Call([&] { fsync_fname(directory.c_str(), true); });
}

}  // namespace

std::string SpoolFiles::NameOf(uint64_t number) const { return prefix_ + std::to_string(number) + kEnding; }

Result<std::vector<uint64_t>> SpoolFiles::List() {
  std::vector<uint64_t> numbers;
  for (const std::string &name : FileNames()) {
    if (name.compare(0, prefix_.size(), prefix_) != 0) continue;
    if (auto const number = NumberIn(name.substr(prefix_.size()), kEnding))
      numbers.push_back(static_cast<uint64_t>(*number));
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Result<std::unique_ptr<stream::SpoolSegment>> SpoolFiles::Create(uint64_t number) {
  auto file =
      std::make_unique<SegmentFile>(MakeFilesDirectory() + "/" + NameOf(number), O_RDWR | O_CREAT | O_TRUNC);
  SyncDirectory();
  return std::unique_ptr<stream::SpoolSegment>(std::move(file));
}

Result<std::unique_ptr<stream::SpoolSegment>> SpoolFiles::Open(uint64_t number) {
  std::string const path = FilesDirectory() + "/" + NameOf(number);
  if (access(path.c_str(), F_OK) != 0) return std::unique_ptr<stream::SpoolSegment>();
  return std::unique_ptr<stream::SpoolSegment>(std::make_unique<SegmentFile>(path, O_RDWR));
}

Status SpoolFiles::Remove(uint64_t number) {
  RemoveFile(NameOf(number));
  return {};
}

std::optional<int64> SpoolFiles::RunOf(const std::string &name) {
  size_t const dash = name.find('-');
  if (dash == std::string::npos || !NumberIn(name.substr(dash + 1), kEnding)) return std::nullopt;
  return RunIn(name.substr(0, dash));
}

}  // namespace prm
