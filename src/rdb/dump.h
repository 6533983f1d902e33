// DUMP payloads: what modules keep about the key (Redis 8.6, seldom), a type byte, the value, the RDB version
// (2 bytes, little endian), CRC64 of all before it.
// Format: redis 8.6 src/cluster.c, createDumpPayload and verifyDumpPayload.
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

// The RDB version that a payload says it has; nothing where it is too short to say.
std::optional<unsigned> DumpVersion(Bytes payload);

// Checks version and checksum, then hands the value to the visitor element by element.
// kCorruptData with the byte offset when the bytes contradict each other, kUnsupported for a type or version
// that this release does not read. After an error the visitor may have seen some elements.
Status DecodeDump(Bytes payload, ValueVisitor& visitor);

// The bytes around a value in a payload.
constexpr size_t kDumpFrameSize = 11;

// Appends version and checksum to type and value, which makes them a payload that RESTORE takes.
void AppendDumpTrailer(unsigned version, std::string& payload);

// Whether the payload holds a hash in a form that knows of fields with an expiry.
bool MayHaveExpiringFields(Bytes payload);

// Whether this release reads the type and the version of a payload, by what stands at its ends. Says nothing
// of what is between them.
bool CanDecodeDump(Bytes payload);

}  // namespace prm::rdb
