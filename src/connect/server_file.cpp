#include "connect/server_file.h"

#include "pg/error.h"
#include "pg/guard.h"

namespace prm {

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

ServerFile::ServerFile(const std::string &path, Oid user) {
  Check(path, user);
  // Opening a pipe would block until a writer opens it.
  file_.emplace(path, O_RDONLY | O_NONBLOCK);
}

Result<size_t> ServerFile::Read(uint64_t offset, char *to, size_t size) {
  return file_->Read(offset, to, size);
}

}  // namespace prm
