#include "connect/server_file.h"

#include <sys/stat.h>

#include "pg/guard.h"

namespace prm {

namespace {

int SqlStateOf(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return ERRCODE_UNDEFINED_FILE;
    case EACCES:
    case EPERM:
      return ERRCODE_INSUFFICIENT_PRIVILEGE;
    default:
      return ERRCODE_IO_ERROR;
  }
}

[[noreturn]] void ThrowCannot(const char *what, const std::string &path, int error_number) {
  throw pg::Failure(
      SqlStateOf(error_number),
      std::string("could not ") + what + " file \"" + path + "\": " + strerror(error_number), "",
      "The path is one of the database server, and the operating system's user of PostgreSQL must be able "
      "to read it.");
}

}  // namespace

bool MayReadServerFiles(Oid user) {
  return pg::Call([&] { return has_privs_of_role(user, ROLE_PG_READ_SERVER_FILES); });
}

void ServerFile::Check(const std::string &path, Oid user) {
  if (!MayReadServerFiles(user))
    throw pg::Failure(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to read a file on the server", "",
                      "Only roles with the privileges of pg_read_server_files may read from a file: GRANT "
                      "pg_read_server_files TO the role.");
  if (!is_absolute_path(path.c_str()) || path.find('\0') != std::string::npos)
    throw pg::Failure(ERRCODE_INVALID_NAME, "file \"" + path + "\" is not an absolute path");
}

ServerFile::ServerFile(const std::string &path, Oid user) : path_(path) {
  Check(path, user);
  // Opening a pipe would block until a writer opens it.
  file_ = pg::Call([&] { return PathNameOpenFile(path.c_str(), O_RDONLY | O_NONBLOCK | PG_BINARY); });
  if (file_ < 0) ThrowCannot("open", path, errno);
  struct stat status;
  if (fstat(FileGetRawDesc(file_), &status) != 0) {
    int const error_number = errno;
    FileClose(file_);
    ThrowCannot("open", path, error_number);
  }
  if (!S_ISREG(status.st_mode)) {
    FileClose(file_);
    throw pg::Failure(ERRCODE_WRONG_OBJECT_TYPE, "\"" + path + "\" is not a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
  identity_ = std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) + ":" +
              std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec);
}

ServerFile::~ServerFile() { FileClose(file_); }

Result<size_t> ServerFile::Read(uint64_t offset, char *to, size_t size) {
  int const most = static_cast<int>(std::min<size_t>(size, 1024 * 1024));
  auto const read = pg::Call([&] {
    CHECK_FOR_INTERRUPTS();
    return FileRead(file_, to, most, static_cast<off_t>(offset), PG_WAIT_EXTENSION);
  });
  if (read < 0) ThrowCannot("read", path_, errno);
  return static_cast<size_t>(read);
}

}  // namespace prm
