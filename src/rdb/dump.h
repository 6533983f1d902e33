// DUMP payloads: metadata of modules about the key (Redis 8.6, rare), a type byte, the value, the RDB version
// (2 bytes, little endian), CRC64 of all before it. Format: redis 8.6 src/cluster.c, createDumpPayload and
// verifyDumpPayload.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "core/bytes.h"
#include "core/status.h"
#include "rdb/value.h"

namespace prm::rdb {

// The type of the value in a payload. kUnsupported with the number for an unknown type.
Result<ValueType> DumpType(Bytes payload);

// The RDB version of a payload; nullopt if it is too short.
std::optional<unsigned> DumpVersion(Bytes payload);

// Checks version and checksum, then passes the value to the visitor element by element. kCorruptData with the
// byte offset when the bytes contradict each other, kUnsupported for a type or version that this release does
// not read. After an error the visitor may have seen some elements.
Status DecodeDump(Bytes payload, ValueVisitor& visitor);

// The bytes around a value in a payload.
constexpr size_t kDumpFrameSize = 11;

// Appends version and checksum to type and value, to make a payload that RESTORE takes.
void AppendDumpTrailer(unsigned version, std::string& payload);

// Whether the payload holds a hash in an encoding with field expiries.
bool MayHaveExpiringFields(Bytes payload);

// Whether this release reads the type and the version of a payload. Does not check the value.
bool CanDecodeDump(Bytes payload);

}  // namespace prm::rdb
