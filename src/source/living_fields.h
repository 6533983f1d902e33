// Fields of hashes that have expired.
#pragma once

#include <cstdint>
#include <string>

#include "core/interrupts.h"
#include "core/status.h"

namespace prm::source {

// Leaves out the fields of a hash that have expired at now_ms (Unix time), which Redis keeps until it comes
// across them and DUMP still tells. Other payloads stay as they are. False if no field is left: then so does
// this one, and the key is as good as gone. Errors: those of rdb::DecodeDump, with the payload as it was.
Result<bool> DropExpiredFields(std::string& payload, int64_t now_ms, Interrupts& interrupts);

}  // namespace prm::source
