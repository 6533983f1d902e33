// Tells the writes of the extension from those of the application.
#pragma once

namespace prm::pg {

// For a scope: what this process writes comes from Redis, or removes what has expired there, too.
class OwnWrite {
 public:
  OwnWrite() { ++depth_; }
  ~OwnWrite() { --depth_; }
  OwnWrite(const OwnWrite &) = delete;
  OwnWrite &operator=(const OwnWrite &) = delete;

  static bool IsUnderWay() { return depth_ > 0; }

 private:
  static inline int depth_ = 0;
};

}  // namespace prm::pg
