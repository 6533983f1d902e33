// Files below the data directory that carry shared memory across a restart: a header that names content and
// version, the content, a CRC-32C. Written under a temporary name, synced, then renamed, so that a crash
// leaves the old file or the new one. Failures are logged and never raised: these run in the postmaster, too.
#pragma once

#include "pg/pg.h"

namespace prm::pg {

class StateFileWriter {
 public:
  // `path` is relative to the data directory, at most MAXPGPATH - 5 bytes; `kind` changes with the layout.
  StateFileWriter(const char *path, uint64 kind);
  ~StateFileWriter();
  StateFileWriter(const StateFileWriter &) = delete;
  StateFileWriter &operator=(const StateFileWriter &) = delete;

  void Write(const void *bytes, size_t size);
  template <typename T>
  void Put(const T &value) {
    static_assert(std::is_trivially_copyable_v<T>);
    Write(&value, sizeof value);
  }
  // A buffer that lives as long as the writer; nullptr, and the file fails, when there is no memory.
  void *Buffer(size_t size);
  // Puts the file in its place. Returns false, with a LOG line, when anything failed on the way.
  bool Finish();

 private:
  void Fail(const char *what);

  char path_[MAXPGPATH];
  char temporary_[MAXPGPATH];
  FILE *file_;
  void *buffer_ = nullptr;
  size_t buffer_size_ = 0;
  pg_crc32c crc_;
  bool ok_;
};

class StateFileReader {
 public:
  // Opens the file and verifies it completely. ok() is false if it is missing, which is silent, or of another
  // kind or damaged, which is logged.
  StateFileReader(const char *path, uint64 kind);
  ~StateFileReader();
  StateFileReader(const StateFileReader &) = delete;
  StateFileReader &operator=(const StateFileReader &) = delete;

  bool ok() const { return file_ != nullptr; }
  void Read(void *bytes, size_t size);
  template <typename T>
  void Get(T *value) {
    static_assert(std::is_trivially_copyable_v<T>);
    Read(value, sizeof *value);
  }

 private:
  void Check(uint64 kind);
  void Refuse(const char *why);

  const char *path_;
  FILE *file_;
  uint64 left_ = 0;  // bytes of content not read yet
};

}  // namespace prm::pg
