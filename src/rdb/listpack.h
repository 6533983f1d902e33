// Listpack: a compact sequence of strings and integers, the encoding of small hashes, sets and sorted sets,
// nodes of lists, and streams. Format: redis 7.0 src/listpack.c and its specification, antirez/listpack.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/bytes.h"
#include "core/status.h"
#include "rdb/byte_reader.h"
#include "rdb/packed_element.h"

namespace prm::rdb {

class ListpackReader {
 public:
  // Reads `blob`, which must outlive the reader and its elements. `place` is the offset of the blob, for
  // error messages. Call Open first.
  ListpackReader(Bytes blob, uint64_t place)
      : reader_(blob.substr(0, blob.size() - EndMarkSize(blob)), "listpack", place), blob_(blob) {}

  // Checks the header (size, number of elements) and the end mark. kCorruptData.
  Status Open();

  bool AtEnd() const { return reader_.AtEnd(); }

  // The next element. kCorruptData if there is none, if it extends beyond the end, if its back length is
  // wrong, or if it is the last and the header's number of elements is wrong.
  Status Next(PackedElement& element);

  // The next element, which must be an integer.
  Status NextInteger(int64_t& value);

  // A kCorruptData error at the reader's offset.
  Error Corrupt(std::string_view problem) const { return reader_.Corrupt(problem); }

 private:
  static size_t EndMarkSize(Bytes blob) { return blob.empty() ? 0 : 1; }

  bool NextShort(PackedElement& element);
  Status CheckCount() const;
  Status ReadElement(PackedElement& element);
  Status ReadBackLength(size_t length);

  ByteReader reader_;  // over all but the end mark
  Bytes blob_;
  uint16_t stated_count_ = 0;
  uint64_t count_ = 0;
};

}  // namespace prm::rdb
