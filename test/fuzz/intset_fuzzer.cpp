// Any bytes as an intset.
#include <cstddef>
#include <cstdint>

#include "fuzz/touch.h"
#include "rdb/intset.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  prm::fuzz::TouchingVisitor visitor;
  (void)prm::rdb::DecodeIntset(prm::Bytes(reinterpret_cast<const char*>(data), size), 0, visitor).ok();
  return 0;
}
