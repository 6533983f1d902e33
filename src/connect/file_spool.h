// A spool in a file of PostgreSQL.
#pragma once

#include "core/byte_spool.h"
#include "pg/guard.h"
#include "pg/virtual_file.h"

namespace prm {

// Base: ByteSpool, or what adds to it. Errors of all functions are thrown: those of pg::VirtualFile.
template <typename Base>
class FileSpool : public Base {
 public:
  Status Append(Bytes bytes) override {
    file_.Write(size_, bytes);
    size_ += bytes.size();
    return {};
  }
  Status Truncate(uint64_t size) override {
    file_.Truncate(size);
    size_ = size;
    return {};
  }
  Result<size_t> Read(uint64_t offset, char *to, size_t size) override {
    return file_.Read(offset, to, size);
  }
  uint64_t size() const override { return size_; }
  std::string identity() const override { return file_.identity(); }
  void CheckInterrupts() override { pg::CheckInterrupts(); }

 protected:
  FileSpool() = default;  // in a new temporary file
  FileSpool(const std::string &path, int flags) : file_(path, flags), size_(file_.size()) {}

  pg::VirtualFile file_;

 private:
  uint64_t size_ = 0;
};

}  // namespace prm
