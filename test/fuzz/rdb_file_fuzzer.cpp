// Any bytes as an RDB file: read element by element, and by payloads. What is decoded must be taken, too.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/layout.h"
#include "fuzz/touch.h"
#include "rdb/file_reader.h"

namespace {

// Keys until the end or the first error; whether it was the end.
template <typename Take>
bool Walk(prm::Bytes input, uint64_t& keys, Take take) {
  prm::fuzz::BytesSource source(input);
  prm::rdb::FileReader reader(source, {});
  if (!reader.Open().ok()) return false;
  for (;;) {
    const prm::Result<bool> next = reader.Next();
    if (!next.ok()) return false;
    if (!next.value()) return true;
    prm::fuzz::Touch(reader.key().name);
    if (!take(reader).ok()) return false;
    ++keys;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const prm::Bytes input(reinterpret_cast<const char*>(data), size);
  uint64_t decoded_keys = 0;
  uint64_t taken_keys = 0;
  const bool decoded = Walk(input, decoded_keys, [](prm::rdb::FileReader& reader) {
    prm::fuzz::TouchingVisitor visitor;
    return reader.DecodeValue(visitor);
  });
  const bool taken = Walk(input, taken_keys, [&](prm::rdb::FileReader& reader) {
    std::string payload;
    uint64_t payload_size = 0;
    const prm::Status status = reader.TakePayload(SIZE_MAX, payload, payload_size);
    if (status.ok() && (payload.size() != payload_size || payload_size > size + 11)) __builtin_trap();
    return status;
  });
  if (decoded && (!taken || decoded_keys != taken_keys)) __builtin_trap();
  return 0;
}
