// A file that stays open across transactions, through PostgreSQL's virtual file descriptors.
#pragma once

#include "core/bytes.h"
#include "pg/pg.h"

namespace prm::pg {

// Every function raises what the operating system refuses by the name of the file: 58P01 no such file, 42501,
// 53100 disk full, 58030 anything else. Interrupts are handled at every read and write.
class VirtualFile {
 public:
  // flags: those of open(2). Errors also: 42809 not a regular file.
  VirtualFile(std::string path, int flags);
  // A new file among PostgreSQL's temporary files, which goes with the object. Errors also: 53400 beyond
  // temp_file_limit.
  VirtualFile();
  ~VirtualFile();
  VirtualFile(const VirtualFile &) = delete;
  VirtualFile &operator=(const VirtualFile &) = delete;

  const std::string &path() const { return path_; }
  // When it was opened: bytes, and device, inode and time of the last change as one word.
  uint64 size() const { return size_; }
  const std::string &identity() const { return identity_; }

  // The number of bytes read, 0 at the end.
  size_t Read(uint64 offset, char *to, size_t size);
  void Write(uint64 offset, Bytes bytes);
  void Truncate(uint64 size);
  void Sync();

 private:
  std::string path_;
  File file_;
  uint64 size_ = 0;
  std::string identity_;
};

[[noreturn]] void ThrowFileError(const char *verb, const std::string &path, int error_number,
                                 const std::string &hint = {});

}  // namespace prm::pg
