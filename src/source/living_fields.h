// Removal of expired fields of hashes.
#pragma once

#include <cstdint>

#include "core/byte_spool.h"
#include "core/interrupts.h"
#include "core/status.h"
#include "source/entry.h"

namespace prm::source {

// Removes the fields of a hash that have expired at now_ms (Unix time): Redis deletes them lazily, and DUMP
// still returns them. Does not change other payloads. A large one needs a place for spools to stay out of
// memory. False if no field is left: the payload is then unchanged, and the key counts as gone. Errors: those
// of Decode, with the payload unchanged, and of the spool.
Result<bool> DropExpiredFields(Entry& entry, int64_t now_ms, Interrupts& interrupts,
                               const MakeSpool& make_spool = {});

}  // namespace prm::source
