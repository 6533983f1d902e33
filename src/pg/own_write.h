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
  static bool IsSweep() { return depth_ > redis_depth_; }

 private:
  friend class WriteForRedis;
  int const from_redis_;
  static inline int depth_ = 0;
  static inline int redis_depth_ = 0;
};

// For a scope within one of kRedis: what it writes goes back to Redis all the same.
class WriteForRedis {
 public:
  WriteForRedis() : depth_(OwnWrite::redis_depth_) { OwnWrite::redis_depth_ = 0; }
  ~WriteForRedis() { OwnWrite::redis_depth_ = depth_; }
  WriteForRedis(const WriteForRedis &) = delete;
  WriteForRedis &operator=(const WriteForRedis &) = delete;

 private:
  int const depth_;
};

}  // namespace prm::pg
