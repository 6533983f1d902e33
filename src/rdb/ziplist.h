// Ziplist: the predecessor of listpacks, the encoding of small lists, hashes and sorted sets and of nodes of
// lists. Format: redis 6.2 src/ziplist.c, the comment at its beginning.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/bytes.h"
#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/packed_element.h"

namespace prm::rdb {

class ZiplistReader {
 public:
  // Reads `blob`, which must outlive the reader and its elements. `place` is the offset of the blob, for
  // error messages. Call Open first.
  ZiplistReader(Bytes blob, uint64_t place)
      : reader_(blob.substr(0, blob.size() - (blob.empty() ? 0 : 1)), "ziplist", place), blob_(blob) {}

  // Checks the header (size, place of the last element, number of elements) and the end mark. kCorruptData.
  Status Open();

  bool AtEnd() const { return reader_.AtEnd(); }

  // The next element. kCorruptData if there is none, if it extends beyond the end, if its size of the
  // previous element is wrong, or if it is the last and contradicts the header.
  Status Next(PackedElement& element);

  // A kCorruptData error at the reader's offset.
  Error Corrupt(std::string_view problem) const { return reader_.Corrupt(problem); }

 private:
  Status CheckEnd() const;
  Status ReadElement(PackedElement& element);

  ByteReader reader_;  // over all but the end mark
  Bytes blob_;
  uint32_t stated_tail_ = 0;
  uint16_t stated_count_ = 0;
  uint64_t count_ = 0;
  uint64_t last_ = 0;       // where the last element read begins; initially where the first one would
  uint64_t last_size_ = 0;  // 0 before the first one
};

}  // namespace prm::rdb
