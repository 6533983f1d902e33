// Any bytes as a stream, in each of its five layouts.
#include <cstddef>
#include <cstdint>

#include "fuzz/layout.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using prm::rdb::Layout;
  const prm::Bytes input(reinterpret_cast<const char*>(data), size);
  for (const Layout layout :
       {Layout::kStream, Layout::kStream2, Layout::kStream3, Layout::kStream4, Layout::kStream5}) {
    prm::fuzz::ReadEveryWay(layout, input);
  }
  return 0;
}
