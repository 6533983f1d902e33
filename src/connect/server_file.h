// Files on the database server that a user names.
#pragma once

#include "core/byte_source.h"
#include "pg/guard.h"
#include "pg/pg.h"
#include "pg/virtual_file.h"

namespace prm {

// Whether the user has the privileges of pg_read_server_files.
bool MayReadServerFiles(Oid user);

// A regular file, open as long as the object lives, across transactions. Interrupts are handled at every
// read.
class ServerFile : public ByteSource {
 public:
  // Opens an absolute path with the rights of `user`. Errors: 42501 without pg_read_server_files or where the
  // operating system forbids it, 42602 for a relative path, 58P01 no such file, 42809 not a regular file,
  // 58030.
  ServerFile(const std::string &path, Oid user);

  // The checks of the constructor that need no file: the user's rights and the form of the path.
  static void Check(const std::string &path, Oid user);

  void CheckInterrupts() override { pg::CheckInterrupts(); }
  Result<size_t> Read(uint64_t offset, char *to, size_t size) override;
  uint64_t size() const override { return file_->size(); }
  std::string identity() const override { return file_->identity(); }

 private:
  std::optional<pg::VirtualFile> file_;
};

}  // namespace prm
