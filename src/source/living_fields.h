// Removal of expired fields of hashes.
#pragma once

#include <cstdint>
#include <string>

#include "core/interrupts.h"
#include "core/status.h"

namespace prm::source {

// Removes the fields of a hash that have expired at now_ms (Unix time): Redis deletes them lazily, and DUMP
// still returns them. Does not change other payloads. False if no field is left: the payload is then
// unchanged, and the key counts as gone. Errors: those of rdb::DecodeDump, with the payload unchanged.
Result<bool> DropExpiredFields(std::string& payload, int64_t now_ms, Interrupts& interrupts);

}  // namespace prm::source
