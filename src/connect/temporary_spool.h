// A spool in a temporary file of PostgreSQL.
#pragma once

#include "core/byte_spool.h"
#include "pg/guard.h"
#include "pg/virtual_file.h"

namespace prm {

// Errors are thrown: those of pg::VirtualFile.
class TemporarySpool : public ByteSpool {
 public:
  static std::unique_ptr<ByteSpool> Make() { return std::make_unique<TemporarySpool>(); }

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
  std::string identity() const override { return file_.path(); }
  void CheckInterrupts() override { pg::CheckInterrupts(); }

 private:
  pg::VirtualFile file_;
  uint64_t size_ = 0;
};

}  // namespace prm
