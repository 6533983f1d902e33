// Integers of a given byte order, whatever the order of the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace prm::rdb {

// The unsigned integer in the sizeof(T) bytes at `bytes`, least significant byte first.
template <typename T>
T LoadLittleEndian(const char* bytes) {
  static_assert(std::is_unsigned_v<T>);
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i));
  }
  return value;
}

// Most significant byte first.
template <typename T>
T LoadBigEndian(const char* bytes) {
  static_assert(std::is_unsigned_v<T>);
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |=
        static_cast<T>(static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * (sizeof(T) - 1 - i)));
  }
  return value;
}

// Appends the lowest `size` bytes of a value, least significant byte first.
inline void AppendLittleEndian(std::string& bytes, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

// Most significant byte first.
inline void AppendBigEndian(std::string& bytes, uint64_t value, size_t size) {
  for (size_t i = size; i-- > 0;) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

}  // namespace prm::rdb
