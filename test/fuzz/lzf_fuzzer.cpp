// Four bytes of size (little endian), then any bytes as a compressed string.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/touch.h"
#include "rdb/endian.h"
#include "rdb/lzf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  const char* const bytes = reinterpret_cast<const char*>(data);
  const uint32_t expanded_size = prm::rdb::LoadLittleEndian<uint32_t>(bytes);
  std::string output;
  if (prm::rdb::LzfDecompress(prm::Bytes(bytes + 4, size - 4), expanded_size, output).ok()) {
    if (output.size() != expanded_size) __builtin_trap();
    prm::fuzz::Touch(output);
  }
  if (output.capacity() > 100 * (size + 1)) __builtin_trap();  // memory that the input does not explain
  return 0;
}
