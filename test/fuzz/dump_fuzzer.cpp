// Any bytes as a DUMP payload, and as a value with a good frame around it, which gets past the checksum.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/touch.h"
#include "rdb/dump.h"

namespace {

using prm::Bytes;

void Decode(Bytes payload) {
  prm::fuzz::TouchingVisitor visitor;
  const bool known = prm::rdb::DumpType(payload).ok();
  const bool decoded = prm::rdb::DecodeDump(payload, visitor).ok();
  if (decoded && !known) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes input(reinterpret_cast<const char*>(data), size);
  Decode(input);
  using std::string_literals::operator""s;
  // Versions of Redis and of Valkey; the checksum was not computed.
  for (const char version : {'\x0a', '\x50'}) Decode(std::string(input) + version + "\0\0\0\0\0\0\0\0\0"s);
  return 0;
}
