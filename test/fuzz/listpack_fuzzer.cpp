// Any bytes as a listpack. What is accepted has as many elements as its header says.
#include <cstddef>
#include <cstdint>

#include "fuzz/touch.h"
#include "rdb/listpack.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  prm::rdb::ListpackReader listpack(prm::Bytes(reinterpret_cast<const char*>(data), size), 0);
  if (!listpack.Open().ok()) return 0;
  size_t count = 0;
  while (!listpack.AtEnd()) {
    prm::rdb::PackedElement element;
    if (!listpack.Next(element).ok()) return 0;
    prm::fuzz::Touch(element.bytes());
    ++count;
  }
  const size_t stated = data[4] | data[5] << 8;
  if (stated != 0xffff && stated != count) __builtin_trap();
  return 0;
}
