// The 16384 hash slots of a Redis Cluster.
#pragma once

#include <bitset>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"

namespace prm::redis {

constexpr size_t kClusterSlots = 16384;

using Slots = std::bitset<kClusterSlots>;

// The slot of a key: CRC16 (XMODEM) of the key, or of its hash tag, the text between its first { and the next
// } if that is not empty, modulo 16384. Source: "Redis cluster specification", Key distribution model.
size_t KeySlot(Bytes key);

// For each slot the lowest number that is a hash tag of it.
std::vector<std::string> SlotTags();

// "0-5460,5462"; "-" for none.
std::string SlotsToText(const Slots& slots);

// Parses such a text. Errors: kInvalidArgument.
Result<Slots> SlotsFromText(Bytes text);

}  // namespace prm::redis
