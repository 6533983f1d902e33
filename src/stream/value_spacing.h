// When a large value that keeps changing may be read again as a whole.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace prm::stream {

// Smaller values do not wait.
constexpr uint64_t kLargeValueBytes = 256 << 10;

// Reading and storing a large value takes at most a twentieth of the time, and all large values together at
// most so many bytes a second: each is late by the time in which several of its changes become one. All times
// are in milliseconds of a clock that never goes back.
class ValueSpacing {
 public:
  using Key = std::pair<int, std::string>;  // database and key

  // bytes_per_second: above 0.
  explicit ValueSpacing(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // A value of so many bytes was read and stored in so long. Small ones are forgotten.
  void Note(const Key& key, uint64_t bytes, int64_t took_ms, int64_t now_ms);

  // How large it was when it was read last; 0: it is not known to be large.
  uint64_t BytesOf(const Key& key) const;

  // How long to wait before it is read again; 0: not at all.
  int64_t PauseMs(const Key& key, int64_t now_ms) const;

 private:
  struct Value {
    uint64_t bytes;
    int64_t due_ms;
  };

  void MakeRoom(int64_t now_ms);

  uint64_t bytes_per_second_;
  std::map<Key, Value> values_;
  int64_t free_ms_ = 0;  // until then, what was read uses up the bytes
};

}  // namespace prm::stream
