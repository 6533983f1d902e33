// Any bytes as a replication stream, whole and in pieces whose sizes the input decides: the same changes come
// of both, within the limits.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fuzz/touch.h"
#include "stream/stream_changes.h"

namespace {

using prm::stream::StreamChange;
using prm::stream::StreamChanges;

constexpr prm::redis::StreamLimits kLimits{64, 4096};

struct Outcome {
  std::vector<StreamChange> changes;
  uint64_t offset = 0;
  int db = 0;
  bool in_transaction = false;
  bool is_valid = true;
};

Outcome Take(prm::Bytes stream, size_t piece) {
  prm::Interrupts interrupts;
  StreamChanges reader({100, 0}, kLimits, interrupts);
  Outcome outcome;
  for (size_t at = 0; at < stream.size() && outcome.is_valid; at += piece) {
    reader.Feed(stream.substr(at, piece), {5, 5});
    while (true) {
      const auto next = reader.Next(outcome.changes);
      outcome.is_valid = next.ok();
      if (!next.ok() || !next.value()) break;
    }
  }
  outcome.offset = reader.position().offset;
  outcome.db = reader.position().db;
  outcome.in_transaction = reader.in_transaction();
  return outcome;
}

bool IsSame(const StreamChange& a, const StreamChange& b) {
  return a.kind == b.kind && a.entry.db == b.entry.db && a.entry.key == b.entry.key &&
         a.entry.payload == b.entry.payload && a.entry.expires_at_ms == b.entry.expires_at_ms &&
         a.other_db == b.other_db && a.edit == b.edit && a.amount == b.amount && a.command == b.command &&
         a.offset == b.offset;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const prm::Bytes stream(reinterpret_cast<const char*>(data + 1), size - 1);
  const Outcome whole = Take(stream, stream.size() + 1);
  const Outcome pieces = Take(stream, data[0] % 16 + 1);
  if (whole.is_valid != pieces.is_valid || whole.offset != pieces.offset || whole.db != pieces.db ||
      whole.in_transaction != pieces.in_transaction || whole.changes.size() != pieces.changes.size())
    __builtin_trap();
  if (whole.offset > 100 + stream.size()) __builtin_trap();
  uint64_t before = 100;
  for (size_t i = 0; i < whole.changes.size(); ++i) {
    const StreamChange& change = whole.changes[i];
    if (!IsSame(change, pieces.changes[i])) __builtin_trap();
    if (change.offset < before || change.offset > 100 + stream.size()) __builtin_trap();
    before = change.offset;
    if (change.entry.key.size() > 64 || change.entry.payload.size() > 64) __builtin_trap();
    prm::fuzz::Touch(change.entry.key);
    prm::fuzz::Touch(change.entry.payload);
  }
  return 0;
}
