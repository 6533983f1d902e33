#include "pg/virtual_file.h"

#include <sys/stat.h>

#include "pg/error.h"
#include "pg/guard.h"

namespace prm::pg {

namespace {

constexpr size_t kMostAtOnce = 1024 * 1024;

int SqlStateOf(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return ERRCODE_UNDEFINED_FILE;
    case EACCES:
    case EPERM:
      return ERRCODE_INSUFFICIENT_PRIVILEGE;
    case ENOSPC:
    case EDQUOT:
      return ERRCODE_DISK_FULL;
    default:
      return ERRCODE_IO_ERROR;
  }
}

}  // namespace

void ThrowFileError(const char *verb, const std::string &path, int error_number, const std::string &hint) {
  throw Failure(SqlStateOf(error_number),
                std::string("could not ") + verb + " file \"" + path + "\": " + strerror(error_number), "",
                hint);
}

VirtualFile::VirtualFile(std::string path, int flags) : path_(std::move(path)) {
  constexpr char kHint[] =
      "The path is one of the database server, and the operating system's user of PostgreSQL must be able "
      "to read it.";
  file_ = Call([&] { return PathNameOpenFile(path_.c_str(), flags | PG_BINARY); });
  if (file_ < 0) ThrowFileError("open", path_, errno, kHint);
  struct stat status;
  if (fstat(FileGetRawDesc(file_), &status) != 0) {
    int const error_number = errno;
    FileClose(file_);
    ThrowFileError("open", path_, error_number, kHint);
  }
  if (!S_ISREG(status.st_mode)) {
    FileClose(file_);
    throw Failure(ERRCODE_WRONG_OBJECT_TYPE, "\"" + path_ + "\" is not a regular file");
  }
  size_ = static_cast<uint64>(status.st_size);
  identity_ = std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) + ":" +
              std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec);
}

VirtualFile::VirtualFile()
    // It outlives the transaction, if there is one.
    : file_(Call([] { return OpenTemporaryFile(true); })) {
  path_ = Call([&] { return FilePathName(file_); });
}

// Closing it may log how large it was, and a log message ends in a look at interrupts.
VirtualFile::~VirtualFile() {
  HOLD_INTERRUPTS();
  FileClose(file_);
  RESUME_INTERRUPTS();
}

size_t VirtualFile::Read(uint64 offset, char *to, size_t size) {
  int const most = static_cast<int>(std::min(size, kMostAtOnce));
  auto const read = Call([&] {
    CHECK_FOR_INTERRUPTS();
    return FileRead(file_, to, most, static_cast<off_t>(offset), PG_WAIT_EXTENSION);
  });
  if (read < 0) ThrowFileError("read", path_, errno);
  return static_cast<size_t>(read);
}

void VirtualFile::Write(uint64 offset, Bytes bytes) {
  while (!bytes.empty()) {
    int const most = static_cast<int>(std::min(bytes.size(), kMostAtOnce));
    char *const from = const_cast<char *>(bytes.data());  // PostgreSQL 15 does not write to it either
    auto const written = Call([&] {
      CHECK_FOR_INTERRUPTS();
      return FileWrite(file_, from, most, static_cast<off_t>(offset), PG_WAIT_EXTENSION);
    });
    if (written <= 0) ThrowFileError("write", path_, written < 0 ? errno : ENOSPC);
    offset += static_cast<uint64>(written);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void VirtualFile::Truncate(uint64 size) {
  if (Call([&] { return FileTruncate(file_, static_cast<off_t>(size), PG_WAIT_EXTENSION); }) != 0)
    ThrowFileError("truncate", path_, errno);
}

void VirtualFile::Sync() {
  if (Call([&] { return FileSync(file_, PG_WAIT_EXTENSION); }) != 0) ThrowFileError("sync", path_, errno);
}

}  // namespace prm::pg
