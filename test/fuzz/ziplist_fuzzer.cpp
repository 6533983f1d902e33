// Any bytes as a ziplist. What is accepted has as many elements as its header says.
#include <cstddef>
#include <cstdint>

#include "fuzz/touch.h"
#include "rdb/ziplist.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  prm::rdb::ZiplistReader ziplist(prm::Bytes(reinterpret_cast<const char*>(data), size), 0);
  if (!ziplist.Open().ok()) return 0;
  size_t count = 0;
  while (!ziplist.AtEnd()) {
    prm::rdb::PackedElement element;
    if (!ziplist.Next(element).ok()) return 0;
    prm::fuzz::Touch(element.bytes());
    ++count;
  }
  const size_t stated = data[8] | data[9] << 8;
  if (stated != 0xffff && stated != count) __builtin_trap();
  return 0;
}
