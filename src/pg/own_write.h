// Tells the writes of the extension from those of the application.
#pragma once

namespace prm::pg {

// For a scope: this process writes for the extension.
class OwnWrite {
 public:
  enum class Of {
    kRedis,  // what it writes comes from Redis
    kSweep,  // it removes what has expired here
  };

  explicit OwnWrite(Of of = Of::kRedis) : from_redis_(of == Of::kRedis ? 1 : 0) {
    ++depth_;
    redis_depth_ += from_redis_;
  }
  ~OwnWrite() {
    --depth_;
    redis_depth_ -= from_redis_;
  }
  OwnWrite(const OwnWrite &) = delete;
  OwnWrite &operator=(const OwnWrite &) = delete;

  static bool IsUnderWay() { return depth_ > 0; }
  static bool IsFromRedis() { return redis_depth_ > 0; }

 private:
  int const from_redis_;
  static inline int depth_ = 0;
  static inline int redis_depth_ = 0;
};

}  // namespace prm::pg
