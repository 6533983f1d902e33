#include "core/small_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace prm {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Error Unusable(const std::string& reason) { return {ErrorCode::kInvalidArgument, {}, reason + ".", {}}; }

}  // namespace

Result<SmallFile> ReadSmallFile(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  SmallFile read{};
  if (file.get() < 0 || fstat(file.get(), &read.info) != 0) return Unusable(std::strerror(errno));
  if (!S_ISREG(read.info.st_mode)) return Unusable("It is not a regular file");
  char buffer[16384];
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer, sizeof(buffer));
    if (count == 0) return read;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Unusable(std::strerror(errno));
    read.bytes.append(buffer, static_cast<size_t>(count));
    if (read.bytes.size() > kMostSmallFileBytes) {
      return Unusable("It has more than " + std::to_string(kMostSmallFileBytes) + " bytes");
    }
  }
}

}  // namespace prm
