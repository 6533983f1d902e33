// The first byte is a type, the rest any bytes as a value of it, as Redis and as Valkey number the types.
#include <cstddef>
#include <cstdint>

#include "fuzz/layout.h"
#include "rdb/version.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const prm::Bytes input(reinterpret_cast<const char*>(data) + 1, size - 1);
  for (const unsigned version : {prm::rdb::kNewestVersion, prm::rdb::kNewestValkeyVersion}) {
    const auto type = prm::rdb::FindObjectType(data[0], version);
    if (type.ok()) prm::fuzz::ReadEveryWay(type.value().layout, input);
  }
  return 0;
}
