// A value that is at hand as a whole, and the commands that give it to a key, whatever that was before.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/interrupts.h"
#include "core/status.h"
#include "sink/element_commands.h"

namespace prm::sink {

// Elements are the string alone; field and value of a hash, one after the other; the elements of a list, in
// order; the members of a set; member and score of a sorted set, one after the other.
struct WholeValue {
  std::string type;  // string, hash, list, set, zset, as TYPE answers
  std::vector<std::string> elements = {};
  std::optional<int64_t> expires_at_ms = std::nullopt;  // Unix time; nothing: never
  // When each field of a hash expires; empty: none does.
  std::vector<std::optional<int64_t>> field_expiries = {};
};

// Whether the value can be one of Redis: a known type, with as many elements as belong together, and scores
// that are numbers.
bool IsComplete(const WholeValue& value);

// Passes the commands, which are to be run in one transaction, to the sink. An empty collection is a key that
// does not exist. Needs Redis 4.0. The value is complete. Errors: those of ElementCommands::Finish; some
// commands may have gone to the sink.
Status WriteWholeValue(Bytes key, const WholeValue& value, const CommandAbilities& abilities,
                       Interrupts& interrupts, CommandSink& sink);

}  // namespace prm::sink
