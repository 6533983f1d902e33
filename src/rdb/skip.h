// Skips the parts of values.
#pragma once

#include <cstdint>

#include "rdb/byte_reader.h"
#include "rdb/encoded_string.h"

namespace prm::rdb {

inline Status SkipLengths(ByteReader& reader, int count) {
  uint64_t ignored = 0;
  for (int i = 0; i < count; ++i) PRM_RETURN_IF_ERROR(ReadLength(reader, ignored));
  return {};
}

inline Status SkipStrings(ByteReader& reader, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) PRM_RETURN_IF_ERROR(SkipString(reader));
  return {};
}

// A number of items, and the items.
template <typename SkipItem>
Status SkipItems(ByteReader& reader, SkipItem skip_item) {
  uint64_t count = 0;
  PRM_RETURN_IF_ERROR(ReadLength(reader, count));
  for (uint64_t i = 0; i < count; ++i) {
    reader.CheckInterrupts();
    PRM_RETURN_IF_ERROR(skip_item());
  }
  return {};
}

}  // namespace prm::rdb
