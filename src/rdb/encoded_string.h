// Lengths and strings of RDB, the building blocks of every encoding. Format: redis 7.0 src/rdb.c,
// rdbLoadLenByRef and rdbGenericLoadStringObject.
#pragma once

#include <cstdint>
#include <string>

#include "core/bytes.h"
#include "core/status.h"
#include "rdb/byte_reader.h"

namespace prm::rdb {

// Reads a count or length (6, 14, 32 or 64 bits, big endian). kCorruptData if a string is there.
Status ReadLength(ByteReader& reader, uint64_t& length);

// Reads a string: plain, compressed, or an integer, which is rendered in decimal. `bytes` points into the
// reader's data (never into a stream's window) or into `scratch` and is valid as long as both. kCorruptData,
// kTooLarge.
Status ReadString(ByteReader& reader, std::string& scratch, Bytes& bytes);

// Skips a string. kCorruptData.
Status SkipString(ByteReader& reader);

}  // namespace prm::rdb
