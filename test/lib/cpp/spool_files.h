// The segments of a spool as files in a temporary directory.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stream/stream_spool.h"

namespace prm::test {

class SpoolFile : public stream::SpoolSegment {
 public:
  SpoolFile(const std::string& path, const char* mode, const size_t* most_written)
      : file_(fopen(path.c_str(), mode)), most_written_(most_written) {
    setvbuf(file_, nullptr, _IONBF, 0);
    size_ = std::filesystem::file_size(path);
  }
  ~SpoolFile() override { fclose(file_); }

  Status Append(Bytes bytes) override {
    const size_t writes = std::min(bytes.size(), *most_written_);
    if (pwrite(fileno(file_), bytes.data(), writes, static_cast<off_t>(size_)) !=
        static_cast<ssize_t>(bytes.size()))
      return Error{ErrorCode::kConnectionFailure, "disk full", {}, {}};
    size_ += bytes.size();
    return {};
  }
  Status Truncate(uint64_t size) override {
    size_ = size;
    if (ftruncate(fileno(file_), static_cast<off_t>(size)) != 0) abort();
    return {};
  }
  Status Sync() override { return {}; }
  Result<size_t> Read(uint64_t offset, char* to, size_t size) override {
    return static_cast<size_t>(pread(fileno(file_), to, size, static_cast<off_t>(offset)));
  }
  uint64_t size() const override { return size_; }
  std::string identity() const override { return "segment"; }
  void CheckInterrupts() override {}

 private:
  FILE* file_;
  const size_t* most_written_;
  uint64_t size_;
};

class SpoolFiles : public stream::SpoolSegments {
 public:
  SpoolFiles() {
    char name[] = "/tmp/prm_spool_XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~SpoolFiles() override { std::filesystem::remove_all(directory_); }

  Result<std::vector<uint64_t>> List() override { return Numbers(); }
  std::vector<uint64_t> Numbers() const {
    std::vector<uint64_t> numbers;
    for (const auto& entry : std::filesystem::directory_iterator(directory_))
      numbers.push_back(std::stoull(entry.path().filename().string()));
    std::sort(numbers.begin(), numbers.end());
    return numbers;
  }
  Result<std::unique_ptr<stream::SpoolSegment>> Create(uint64_t number) override {
    return std::unique_ptr<stream::SpoolSegment>(new SpoolFile(PathOf(number), "w+", &most_written_));
  }
  Result<std::unique_ptr<stream::SpoolSegment>> Open(uint64_t number) override {
    if (!std::filesystem::exists(PathOf(number))) return std::unique_ptr<stream::SpoolSegment>();
    return std::unique_ptr<stream::SpoolSegment>(new SpoolFile(PathOf(number), "r+", &most_written_));
  }
  Status Remove(uint64_t number) override {
    std::filesystem::remove(PathOf(number));
    return {};
  }

  // As on a full disk, no more bytes of a write are written than these; it fails if that are not all.
  void set_most_written(size_t most) { most_written_ = most; }

  // All files with what they hold, to come back to.
  std::map<uint64_t, std::string> Contents() {
    std::map<uint64_t, std::string> contents;
    for (const uint64_t number : Numbers()) {
      std::ifstream file(PathOf(number), std::ios::binary);
      contents[number] = std::string{std::istreambuf_iterator<char>(file), {}};
    }
    return contents;
  }
  void SetContents(const std::map<uint64_t, std::string>& contents) {
    for (const uint64_t number : Numbers()) (void)Remove(number);
    for (const auto& [number, bytes] : contents) std::ofstream(PathOf(number), std::ios::binary) << bytes;
  }

 private:
  std::string PathOf(uint64_t number) const { return directory_ + "/" + std::to_string(number); }

  std::string directory_;
  size_t most_written_ = std::string::npos;
};

}  // namespace prm::test
