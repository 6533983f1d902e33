// Any bytes as a hash whose fields may expire, in each of its layouts.
#include <cstddef>
#include <cstdint>

#include "fuzz/layout.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using prm::rdb::Layout;
  const prm::Bytes input(reinterpret_cast<const char*>(data), size);
  for (const Layout layout :
       {Layout::kExpiringHashDraft, Layout::kExpiringListpackDraft, Layout::kExpiringHash,
        Layout::kExpiringListpack, Layout::kValkeyExpiringHash}) {
    prm::fuzz::ReadEveryWay(layout, input);
  }
  return 0;
}
