// The checksum of DUMP payloads and RDB files.
#pragma once

#include <cstdint>

#include "core/bytes.h"

namespace prm::rdb {

// CRC-64/Jones of `data` (polynomial 0xad93d23594c935a9, reflected, initial value 0, no final xor), as in
// redis src/crc64.c. To sum data in pieces pass the sum of the bytes before it as `crc`.
uint64_t Crc64(Bytes data, uint64_t crc = 0);

}  // namespace prm::rdb
